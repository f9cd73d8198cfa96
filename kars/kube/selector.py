"""Would a watch's selector take an object in? Only for the simple forms that we watch with ourselves."""

from __future__ import annotations

from kars.kube.types import Object

FIELDS = {"metadata.name": "name", "metadata.namespace": "namespace"}


def accepts(value: Object, *, namespace: str = "", labels: str = "", fields: str = "") -> bool:
    """Say whether a list with these selectors would hold the object; false also where we cannot tell."""
    metadata = value.get("metadata") or {}
    if namespace and metadata.get("namespace") != namespace:
        return False
    if "(" in labels:
        return False
    worn = metadata.get("labels") or {}
    if not all(holds(term, worn) for term in labels.split(",") if term.strip()):
        return False
    named = {field: metadata.get(name) or "" for field, name in FIELDS.items()}
    for term in filter(None, fields.split(",")):
        if term.partition("=")[0].rstrip("!") not in named or not holds(term, named):
            return False
    return True


def holds(term: str, given: dict[str, str]) -> bool:
    """Evaluate `a=b`, `a==b`, `a!=b`, `a` or `!a`."""
    term = term.strip()
    if "!=" in term:
        name, _, value = term.partition("!=")
        return given.get(name.strip()) != value.strip()
    if "=" in term:
        name, _, value = term.partition("=")
        return given.get(name.strip()) == value.removeprefix("=").strip()
    if term.startswith("!"):
        return term[1:].strip() not in given
    return term in given
