"""Status as a document: whether it differs from what is there, what to send, and whose members are whose.

Several controllers write conditions of one resource, so status is applied (server-side) by a manager each: the API
server merges conditions by type and removes what a manager no longer names. Who owns what is read from `managedFields`
when the object is seen, because that tells also after a restart what a manager once wrote and no longer wants.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from kars.desired import names
from kars.kube.types import Object
from kars.model.base import Resource
from kars.model.decode import bare

# Field managers of our own begin so; `unknown` is what an API server calls a client without a name, such as an earlier
# controller that wrote whole statuses by merge patch. What only that one owns is nobody's any more.
OURS = names.CONTROLLER
NOBODY = "unknown"
# Members that say when something was last looked at: no reason to write by themselves.
LOOKED_AT = re.compile(r"last(Compiled|Reconciled|Probed)At\Z")
# Distinct sets of owned members that are kept once for all; kinds times ways of their statuses are far fewer.
MOST_SETS = 4096

Owners = tuple[tuple[str, frozenset[str]], ...]


def manager(kind: str) -> str:
    """Return the field manager that a kind's status and finalizer are written by."""
    return names.MANAGERS.get(kind, f"{OURS}/{kind.lower()}")


@functools.cache
def status_type(kind: type[Resource]) -> Any:  # noqa: ANN401 - a struct's class
    """Return the struct of a kind's status."""
    fields = {field.encode_name: field.type for field in inspect.type_info(kind).fields}  # type: ignore[attr-defined]
    info = bare(fields["status"])
    return info.cls  # type: ignore[union-attr]


def normal(kind: type[Resource], status: Mapping[str, Any]) -> Object:
    """Write a status the one way: by its struct, times in UTC, defaults left out. ValidationError: it is none."""
    value: Object = msgspec.json.decode(msgspec.json.encode(msgspec.convert(status, status_type(kind))))
    return value


def plain(resource: Resource) -> Object:
    """Return the status that a resource bears, written the one way."""
    status = getattr(resource, "status", None)
    return {} if status is None else msgspec.json.decode(msgspec.json.encode(status))


def by_type(status: Object) -> dict[str, Mapping[str, Any]]:
    """Return the conditions of a status by their type; what is none, as an older schema may have let pass, is not."""
    found = status.get("conditions")
    if not isinstance(found, list):
        return {}
    return {one["type"]: one for one in found if isinstance(one, dict) and isinstance(one.get("type"), str)}


def settled(wanted: Object, held: Object) -> Object:
    """Return what is wanted with the transition times that are there, where the condition's status stays."""
    there = by_type(held)
    made = []
    for one in wanted.get("conditions", ()):
        before = there.get(one["type"])
        if before is not None and before.get("status") == one["status"] and "lastTransitionTime" in before:
            made.append({**one, "lastTransitionTime": before["lastTransitionTime"]})
        else:
            made.append(one)
    return {**wanted, "conditions": made} if made else wanted


def differs(wanted: Object, held: Object, owned: frozenset[str]) -> bool:
    """Whether a settled status is not what is there, or members that are no longer wanted still are."""
    there = by_type(held)
    if any(there.get(one["type"]) != one for one in wanted.get("conditions", ())):
        return True
    if any(held.get(name) != value for name, value in wanted.items() if name != "conditions" and not idle(name)):
        return True
    return bool(owned - members(wanted))


def idle(name: str) -> bool:
    """Whether a member alone is no reason to write."""
    return LOOKED_AT.match(name) is not None


def members(status: Object) -> frozenset[str]:
    """Return the names of a status's members; a condition's is `conditions/<type>`."""
    names = {name for name in status if name != "conditions"}
    return frozenset(names | {f"conditions/{kind}" for kind in by_type(status)})


def transitions(wanted: Object, held: Object) -> list[tuple[str, str]]:
    """Return type and new status of the conditions whose status changes."""
    there = by_type(held)
    return [
        (one["type"], one["status"])
        for one in wanted.get("conditions", ())
        if one["type"] not in there or there[one["type"]].get("status") != one["status"]
    ]


def owners(metadata: Mapping[str, Any], known: dict[Owners, Owners]) -> Owners:
    """Return which members of the status our managers own, and under "" those that only `unknown` does."""
    ours: dict[str, frozenset[str]] = {}
    nobodys: frozenset[str] = frozenset()
    for entry in metadata.get("managedFields") or ():
        if entry.get("subresource") != "status":
            continue
        names = owned_members(entry.get("fieldsV1") or {})
        if entry.get("operation") == "Apply" and str(entry.get("manager", "")).startswith(OURS):
            ours[entry["manager"]] = names
        elif entry.get("operation") == "Update" and str(entry.get("manager", "")).startswith((NOBODY, OURS)):
            nobodys |= names
    if nobodys:
        ours[""] = nobodys.difference(*ours.values())
    made = tuple(sorted(ours.items()))
    if len(known) >= MOST_SETS:
        known.clear()
    return known.setdefault(made, made)


def owned_members(fields: Mapping[str, Any]) -> frozenset[str]:
    """Read a FieldsV1 set (structured-merge-diff): `f:name`, and of conditions `k:{"type":"..."}`."""
    found = set()
    for name, below in (fields.get("f:status") or {}).items():
        if name == "f:conditions":
            found |= {f"conditions/{kind}" for kind in map(condition_type, below) if kind}
        elif name.startswith("f:"):
            found.add(name[2:])
    return frozenset(found)


def condition_type(path: str) -> str:
    """Return the type of a condition from its path element; empty for anything else."""
    if not path.startswith("k:"):
        return ""
    try:
        key = msgspec.json.decode(path[2:])
    except msgspec.DecodeError:
        return ""
    kind = key.get("type") if isinstance(key, dict) else None
    return kind if isinstance(kind, str) else ""


def left_behind(wanted: Object, held: Object, nobodys: frozenset[str]) -> Object:
    """Return the merge patch that takes away what nobody owns and nobody wants; empty when there is no such thing."""
    stale = (nobodys & members(held)) - members(wanted)
    if not stale:
        return {}
    patch: Object = {name: None for name in stale if not name.startswith("conditions/")}
    there = by_type(held)
    kept = [one for kind, one in there.items() if f"conditions/{kind}" not in stale]
    if len(kept) != len(there):
        patch["conditions"] = kept
    return patch
