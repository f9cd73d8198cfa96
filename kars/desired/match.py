"""Whether an object in the cluster still is what was planned.

The API server adds defaults, rewrites quantities and leaves out what is empty; other managers add fields of their own.
None of that is a difference. A field that was wanted and is gone, or has another value, is one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from kars.desired import names, quantity
from kars.kube.types import Object

# Members of an object that a plan can say. Of the metadata, those in METADATA.
SAID = ("spec", "data", "binaryData", "type", "rules", "roleRef", "subjects", "automountServiceAccountToken", "digests")
METADATA = (
    "name",
    "namespace",
    "labels",
    "annotations",
    "ownerReferences",
    "uid",
    "resourceVersion",
    "deletionTimestamp",
)

# Lists that the API server merges by a key (x-kubernetes-list-map-keys of the built-in types), and by which. All other
# lists are one value.
KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",),
}
# `ports` is a list of three kinds of things; only those of a container and of a Service have keys.
CONTAINER_PORT = ("containerPort", "protocol")
SERVICE_PORT = ("port", "protocol")
# Containers that start one after another: their order is what was wanted, too.
ORDERED = "initContainers"

# Where quantities are: maps of them in a container's or claim's `resources`, and a volume's size.
QUANTITIES = {"resources": ("requests", "limits"), "emptyDir": ("sizeLimit",)}


def stands(wanted: Object, found: Object) -> bool:
    """Whether every field that is wanted is there with that value, and the stamps agree.

    Quantities are compared as numbers, keyed lists by their keys, what the API server fills in is passed over. Of a
    Secret, `found` may carry `digests` (SHA-256 by key, as `digests` makes them) instead of its data.
    """
    if stamp_of(wanted) != stamp_of(found):
        return False
    if "digests" in found and "data" in wanted:
        wanted = {**wanted, "digests": digests(wanted["data"])}
        del wanted["data"]
    return within(wanted, found)


def stamp_of(value: Object) -> str:
    """Return an object's stamp; empty without one."""
    notes = value["metadata"].get("annotations")
    return str(notes.get(names.DESIRED, "")) if isinstance(notes, dict) else ""


def digests(data: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 (hex) of each value of a Secret's data, which is base64, by key."""
    result = {}
    for key, text in data.items():
        try:
            value = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            value = text.encode()
        result[key] = hashlib.sha256(value).hexdigest()
    return result


def pruned(value: Object) -> Object:
    """Return what of an object in the cluster `stands` can need, which is all that a cache should hold.

    A Secret's data is there as digests.
    """
    result: Object = {"apiVersion": value["apiVersion"], "kind": value["kind"]}
    result["metadata"] = {name: value["metadata"][name] for name in METADATA if name in value["metadata"]}
    result.update({name: value[name] for name in SAID if name in value})
    if value["kind"] == "Secret":
        result["digests"] = digests(result.pop("data", None) or {})
    return result


def within(wanted: Object, found: Any) -> bool:  # noqa: ANN401 - whatever the API server holds there
    """Whether a map has every wanted member, with its value."""
    if not isinstance(found, dict):
        return False
    return all(value == found.get(name) or same_value(name, value, found.get(name)) for name, value in wanted.items())


def same_value(name: str, wanted: Any, found: Any) -> bool:  # noqa: ANN401 - whatever the API server holds there
    """Whether a member that is not equal says the same all the same."""
    if isinstance(wanted, dict):
        if name in QUANTITIES:
            return same_quantities(wanted, found, QUANTITIES[name])
        return within(wanted, found)
    if isinstance(wanted, list):
        return same_list(name, wanted, found)
    return bool(wanted == "" and found is None)  # an empty text is left out


def same_quantities(wanted: Object, found: Any, members: tuple[str, ...]) -> bool:  # noqa: ANN401 - as above
    """Whether a map has every wanted member, those that are quantities, or maps of them, as numbers."""
    if not isinstance(found, dict):
        return False
    for name, value in wanted.items():
        other = found.get(name)
        if name not in members:
            alike = value == other or same_value(name, value, other)
        elif isinstance(value, dict):
            alike = isinstance(other, dict) and all(
                key in other and quantity.same(one, other[key]) for key, one in value.items()
            )
        else:
            alike = other is not None and quantity.same(value, other)
        if not alike:
            return False
    return True


def same_list(name: str, wanted: list[Any], found: Any) -> bool:  # noqa: ANN401 - whatever the API server holds there
    """Whether a list has every wanted item, by key where it has one, else at the same place and no other."""
    if found is None:
        return not wanted
    if not isinstance(found, list):
        return False
    keys = keys_of(name, wanted)
    if keys is None:
        return len(wanted) == len(found) and all(
            one == other or (isinstance(one, dict) and within(one, other))
            for one, other in zip(wanted, found, strict=True)
        )
    places = {key_of(item, keys): index for index, item in enumerate(found) if isinstance(item, dict)}
    last = -1
    for item in wanted:
        place = places.get(key_of(item, keys))
        if place is None or not same_item(name, item, found[place]):
            return False
        if name == ORDERED:
            if place < last:
                return False
            last = place
    return True


def key_of(item: Object, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return what tells an item of a list from the others."""
    return tuple(str(item.get(key, "")) for key in keys)


def same_item(name: str, wanted: Object, found: Object) -> bool:
    """Whether an item has what is wanted; a variable's value may not come from elsewhere beside it."""
    if name == "env" and ("valueFrom" in found) != ("valueFrom" in wanted):
        return False
    return wanted == found or within(wanted, found)


def keys_of(name: str, items: list[Any]) -> tuple[str, ...] | None:
    """Return by which members the items of a list are told apart; None for a list that is one value."""
    if name == "ports" and items and isinstance(items[0], dict):
        if "containerPort" in items[0]:
            return CONTAINER_PORT
        return SERVICE_PORT if "targetPort" in items[0] else None
    return KEYS.get(name)
