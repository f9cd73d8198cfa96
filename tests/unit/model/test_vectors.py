"""What is valid is taken and kept whole, what is not is refused with its reason: by the structs and by the schemas."""

import copy
import json

import pytest

from kars.errors import ResourceError
from kars.model import decode, schema
from kars.model.kinds import KINDS
from tests.unit.model import oracle, vectors

SCHEMAS = {name: schema.of(kind) for name, kind in KINDS.items()}
SAMPLES = [
    pytest.param(document, id=f"{file}-{number}")
    for file, documents in vectors.VALID.items()
    for number, document in enumerate(documents)
]
CASES = [
    pytest.param(case, id=f"{case['kind']}-{number}-{'-'.join(case['set'])}")
    for number, case in enumerate(vectors.INVALID["cases"])
]


def test_every_kind_has_a_least_and_a_full_sample():
    for name, kind in KINDS.items():
        least, full = vectors.VALID[kind.NAMES.plural][:2]
        assert least["kind"] == full["kind"] == name
        assert "status" not in least
        assert set(full["status"]) == set(SCHEMAS[name]["properties"]["status"]["properties"])
        seen = {member for document in vectors.VALID[kind.NAMES.plural] for member in document["spec"]}
        assert seen == set(SCHEMAS[name]["properties"]["spec"]["properties"])


@pytest.mark.parametrize("document", SAMPLES)
def test_a_valid_sample_is_taken_by_structs_and_schema(document):
    assert oracle.refusals(SCHEMAS[document["kind"]], document) == []
    assert type(decode.decode(document)).__name__ == document["kind"]


@pytest.mark.parametrize("document", SAMPLES)
def test_a_valid_sample_survives_a_round_trip(document):
    resource = decode.decode(document)
    written = decode.document(resource)
    assert decode.decode(written) == resource
    assert json.loads(json.dumps(written)) == written


@pytest.mark.parametrize("document", SAMPLES)
def test_a_round_trip_loses_nothing_but_defaults_and_nulls(document):
    written = decode.document(decode.decode(document))
    for member in ("spec", "status"):
        rules = SCHEMAS[document["kind"]]["properties"][member]
        expected, got = copy.deepcopy(document.get(member)), written.get(member)
        oracle.prepare(rules, expected)
        oracle.prepare(rules, got)
        assert without_empty(got) == without_empty(expected)


def without_empty(value):
    """Empty lists and maps are how defaults read, and are not written; neither is an empty object's absence told apart."""
    if isinstance(value, dict):
        kept = {name: without_empty(member) for name, member in value.items()}
        return {name: member for name, member in kept.items() if member not in ([], {}, None)}
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value


@pytest.mark.parametrize("case", CASES)
def test_an_invalid_sample_is_refused_with_its_reason(case):
    document = vectors.changed(vectors.least(case["kind"]), case["set"])
    with pytest.raises(ResourceError) as refused:
        decode.decode(document)
    assert str(refused.value) == case["error"]
    assert oracle.refusals(SCHEMAS[case["kind"]], document) != []


@pytest.mark.parametrize("case", vectors.INVALID["changes"], ids=lambda case: case["error"])
def test_a_forbidden_change_is_refused_by_the_schema(case):
    before = vectors.changed(vectors.least(case["kind"]), case["from"])
    after = vectors.changed(before, case["set"])
    rules = SCHEMAS[case["kind"]]
    assert (
        oracle.refusals(rules, before) == oracle.refusals(rules, after) == oracle.refusals(rules, before, before) == []
    )
    assert [text.partition(": ")[2] for text in oracle.refusals(rules, after, before)] == [case["error"]]


def test_every_rule_is_seen_to_refuse():
    """A rule that no case breaks could as well say nothing."""
    seen = {case["error"] for case in vectors.INVALID["changes"]}
    seen |= {case["error"].split(": ", 1)[1] for case in vectors.INVALID["cases"]}
    stated = {
        rule["message"]
        for root in SCHEMAS.values()
        for part in parts(root)
        for rule in part.get("x-kubernetes-validations", ())
    }
    # Of the nine variants of a runtime two stand for all, and each action's parameters are one rule made five times.
    made = {text for text in stated if text.startswith("runtime.") or " has the parameters " in text}
    assert stated - made <= seen, stated - made - seen


def parts(root):
    yield root
    for member in root.get("properties", {}).values():
        yield from parts(member)
    for name in ("items", "additionalProperties"):
        if isinstance(root.get(name), dict):
            yield from parts(root[name])
