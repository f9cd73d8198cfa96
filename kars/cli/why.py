"""`kars why`: one decision, found again and explained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import click

from kars.cli import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.policy.kinds import Kind
    from kars.policy.load import Bundle
    from kars.policy.recorded import Row

EPILOG = """\b
Examples:
  kars why 3f9c1a2b4d5e6f70
  kars why 3f9c1a2b4d5e6f70 --audit /var/log/kars/audit -o json
"""

# What would help where no list decided, by the word that the rule begins with.
EGRESS_HINTS = {
    "blocklist": "blocklists win over the allowlist; take the name off the list, or set BLOCKLIST_ENABLED=false",
    "address-guard": 'where that address is meant, grant it: "addresses" at the endpoint of the allowlist',
    "egress-fronting": "name one host everywhere, by CONNECT, SNI and Host, with none hidden; or EGRESS_FRONTING=allow",
    "EGRESS_MAX_CONNECTIONS": "try again in a moment; EGRESS_MAX_CONNECTIONS is the bound",
}
MALFORMED_HINT = "the client's bytes break the grammar of HTTP or TLS; look at what speaks there"
INFERENCE_HINTS = {
    "inference-policy": "mount inference-policy.json at INFERENCE_POLICY_DIR",
    "tokenBudget.perRequestTokens": "ask for fewer output tokens, or raise this limit",
    "tokenBudget": "wait until the window is over, or raise this limit",
    "requestRate": "wait as Retry-After says, or raise this limit",
    "models": "name another model, or change this rule",
    "tools": "leave the tool out, or change this rule",
    "contentSafety": "the provider's own annotations passed this floor; lower it only where that is meant",
}

DOORS = {
    "connect": "a tunnel (CONNECT) to",
    "http": "a plain HTTP request to",
    "tls": "a redirected TLS connection to",
    "fetch": "a fetch from",
}


@click.command(epilog=EPILOG)
@click.argument("decision", metavar="ID")
@click.option("--audit", type=click.Path(path_type=Path), help="Directory of the audit log; else KARS_AUDIT_DIR.")
@click.option("--policy", type=click.Path(path_type=Path), help="Directory of the policy files; else the mounts here.")
@output.option
def why(decision: str, audit: Path | None, policy: Path | None, form: str) -> None:
    """Explain a decision of the router.

    Says what was asked, which rule decided, where that rule stands, and what would change the decision. ID is the
    decision id that a denial names (16 hex digits); the audit log is read newest first.
    """
    from kars.errors import NotFoundError
    from kars.local import trail
    from kars.router import tools

    wanted = decision.lower()
    if not re.fullmatch(r"[0-9a-f]{16}", wanted):
        raise click.UsageError(f"a decision id is 16 hex digits: {output.plain(decision)}")
    directory = audit or Path(tools.setting("KARS_AUDIT_DIR"))
    found = trail.find(directory, wanted)
    if found is None:
        raise NotFoundError(
            f"{directory}: no decision {wanted}",
            hint="calls and connections are recorded when they end; older files may have gone, --audit names others",
        )
    path, record = found
    fields = explain(record, policy)
    if form == "json":
        output.document("Decision", {"id": wanted, "file": str(path), **fields, "record": dict(record)})
    else:
        shown = {"decision id": wanted, **fields, "recorded in": str(path)}
        output.table((name, output.plain(str(value))) for name, value in shown.items() if value not in ("", None, 0))


def explain(record: Mapping[str, object], policy: Path | None) -> dict[str, object]:
    """Say of a record what a person asks; absent members are empty."""
    inner = record.get("call")
    call: Mapping[str, object] = inner if isinstance(inner, dict) else {}
    action = str(record.get("action", ""))
    fields: dict[str, object] = {
        "when": call.get("at") or record.get("ts", ""),
        "sandbox": record.get("sandbox", ""),
        "asked": asked(action),
        "decision": record.get("decision", ""),
        "rule": call.get("rule", ""),
        "policy": call.get("policy", ""),
        "status": call.get("status", 0),
        "end": call.get("end", ""),
        "address": call.get("address", ""),
        "model": call.get("model", ""),
        "tokens": tokens(call),
        "sent": size(call.get("sent_bytes")),
        "received": size(call.get("received_bytes")),
        "first byte" if not action.startswith("egress:") else "connected": took(call, "first_byte_us"),
        "took": took(call, "latency_us"),
    }
    denied = record.get("decision") != "allow"
    if action.startswith("egress:"):
        return {**fields, **egress(record, call, policy, denied=denied)}
    return {**fields, **inference(call, policy, denied=denied)}


def asked(action: str) -> str:
    """Write an action for people."""
    from kars.policy.recorded import destination

    parts = destination(action)
    if parts is not None:
        door, host, port, method = parts
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{DOORS[door]} {place}{f' ({method})' if method else ''}"
    kind, _, rest = action.partition(":")
    operation, _, model = rest.partition(":")
    if kind == "inference":
        return f"{operation.replace('_', ' ')} of model {model or '-'}"
    return action


def tokens(call: Mapping[str, object]) -> str:
    """Write the tokens of a model call."""
    given, made = call.get("input_tokens", 0), call.get("output_tokens", 0)
    about = " (estimated)" if call.get("estimated") else ""
    return f"{given} in, {made} out{about}" if given or made else ""


def size(value: object) -> str:
    """Write a number of bytes."""
    return f"{value} bytes" if isinstance(value, int) and value else ""


def took(call: Mapping[str, object], name: str) -> str:
    """Write a duration."""
    value = call.get(name)
    return f"{value / 1000:.1f} ms" if isinstance(value, int) and value else ""


def egress(
    record: Mapping[str, object], call: Mapping[str, object], policy: Path | None, *, denied: bool
) -> dict[str, object]:
    """Explain a connection: where its rule stands, and what the lists mounted now say of it."""
    from kars.policy import kinds, recorded

    rule = str(call.get("rule", ""))
    allowlist = mount(kinds.ALLOWLIST, policy)
    approvals = mount(kinds.APPROVAL, policy)
    fields = standing(kinds.ALLOWLIST, allowlist, call, rule.removeprefix("allowlist."))
    if not denied:
        return fields
    if not rule.startswith(recorded.LIST_RULES):
        hint = next((text for start, text in EGRESS_HINTS.items() if rule.startswith(start)), MALFORMED_HINT)
        return {**fields, "change": hint}
    row = recorded.of_record(record)
    if row is None or allowlist is None:
        return {**fields, "change": "" if allowlist is not None else "mount allowlist.json at EGRESS_ALLOWLIST_DIR"}
    return {**fields, "change": judged(allowlist.files + (approvals.files if approvals else []), row)}


def judged(files: list[tuple[str, bytes]], row: Row) -> str:
    """Say what the lists mounted now decide, and the nearest change where they refuse."""
    from kars.errors import KarsError
    from kars.router import tools

    try:
        verdict = tools.replay(files, [row])[0]
    except (KarsError, IndexError) as error:
        return f"unknown: {error}"
    if verdict.allowed:
        return f"none is needed: {verdict.rule} allows it now"
    return verdict.hint or f"{verdict.rule} refuses it"


def inference(call: Mapping[str, object], policy: Path | None, *, denied: bool) -> dict[str, object]:
    """Explain a model call: where its rule stands, and what would help."""
    from kars.policy import kinds

    rule = str(call.get("rule", "")).removeprefix("inference-policy/")
    fields = standing(kinds.INFERENCE, mount(kinds.INFERENCE, policy), call, rule)
    hint = next((text for start, text in INFERENCE_HINTS.items() if rule.startswith(start)), "") if denied else ""
    return {**fields, "change": hint}


def mount(kind: Kind, policy: Path | None) -> Bundle | None:
    """Read the bundle mounted now; a mount that cannot be read counts as none."""
    from kars.errors import KarsError
    from kars.policy import load
    from kars.router import tools

    variables = {
        "InferencePolicy": "INFERENCE_POLICY_DIR",
        "EgressAllowlist": "EGRESS_ALLOWLIST_DIR",
        "EgressApproval": "EGRESS_APPROVAL_DIR",
    }
    try:
        return load.mounted(str(policy) if policy else tools.setting(variables[kind.name]), kind)
    except KarsError:
        return None


def standing(kind: Kind, bundle: Bundle | None, call: Mapping[str, object], rule: str) -> dict[str, object]:
    """Say whether the policy that decided is still mounted, and where in it the rule stands."""
    from kars.errors import PolicyError
    from kars.policy import publish
    from kars.policy.place import locate

    if bundle is None or not call.get("policy"):
        return {}
    try:
        current = publish.compile_bundle(kind, bundle.files).digest
    except PolicyError:
        return {"now": f"{bundle.source} is not valid"}
    if current != call.get("policy"):
        return {"now": f"another policy is mounted: {current}"}
    found = locate(bundle.files[0][1].decode(errors="replace"), rule) if rule else None
    if found is None:
        return {"now": "that policy is mounted"}
    line, value = found
    return {"now": "that policy is mounted", "place": f"{bundle.source}:{line}: {json.dumps(value)}"}
