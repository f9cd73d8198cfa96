"""Azure's content-filter annotations.

A model named `annotated-<severity>` gets them at that severity (`safe`, `low`, `medium`, `high`) in every
category, `annotated-<severity>-<category>` in one of them, the others being `safe`.
"""

from kars.local.demo.reply import Json

CATEGORIES = ("hate", "self_harm", "sexual", "violence")
SEVERITIES = ("safe", "low", "medium", "high")


def results(severity: str, category: str | None = None) -> Json:
    """One `content_filter_results` object; Azure filters from `medium` on."""
    found: Json = {}
    for name in CATEGORIES:
        level = severity if category in (None, name) else "safe"
        found[name] = {"filtered": SEVERITIES.index(level) >= 2, "severity": level}
    return found


def annotation(model: str) -> Json | None:
    """Make the annotation a model's name asks for."""
    word, _, rest = model.partition("-")
    severity, _, category = rest.partition("-")
    if word != "annotated" or severity not in SEVERITIES:
        return None
    return results(severity, category.replace("-", "_") or None)


def prompt_results(model: str) -> Json:
    """Make the `prompt_filter_results` member, or nothing."""
    found = annotation(model)
    if found is None:
        return {}
    shield = {"jailbreak": {"filtered": False, "detected": False}}
    return {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": found | shield}]}


def choice_results(model: str) -> Json:
    """Make the `content_filter_results` member of a choice, or nothing."""
    found = annotation(model)
    return {} if found is None else {"content_filter_results": found}


def refusal_details() -> Json:
    """Make the `innererror` of a prompt that was stopped."""
    stopped = results("high", "violence") | {"jailbreak": {"filtered": False, "detected": False}}
    return {"code": "ResponsibleAIPolicyViolation", "content_filter_result": stopped}
