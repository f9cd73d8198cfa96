"""Turn documents into resources, or say what is wrong, where, and what would be allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from kars.errors import ResourceError
from kars.model.base import API_VERSION, Broken, Resource, re2
from kars.model.kinds import KINDS

Kind = TypeVar("Kind", bound=Resource)

# A validation error of msgspec: what, and where from the root `$`.
REPORT = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>.*)`)?", re.DOTALL)
STEP = re.compile(r"\.(?P<member>[^.\[]+)|\[(?P<item>[^\]]*)\]")


def decode(document: object) -> Resource:
    """Turn a document of any of our kinds into its struct; `ResourceError` when it is not valid."""
    if not isinstance(document, Mapping):
        raise ResourceError("a resource is an object with apiVersion, kind, metadata and spec")
    version, name = document.get("apiVersion"), document.get("kind")
    if version != API_VERSION:
        raise ResourceError(f"apiVersion: {version!r} is not {API_VERSION}")
    if not isinstance(name, str) or name not in KINDS:
        raise ResourceError(f"kind: {name!r} is not one of {', '.join(KINDS)}")
    return parse(KINDS[name], document)


def parse(kind: type[Kind], document: Mapping[str, Any]) -> Kind:
    """Turn a document of one kind into its struct; `ResourceError` when it is not valid."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError:
        # Nulls are rare, so they are only looked for when something is wrong.
        document = without_nulls(document, inspect.type_info(kind))
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise ResourceError(explain(kind, error)) from None


def document(resource: Resource) -> dict[str, Any]:
    """Turn a resource into a document as JSON reads it (lists, not tuples), without members that have their default."""
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(resource))
    return made


def without_nulls(value: Any, info: inspect.Type | None) -> Any:  # noqa: ANN401 - a document of any shape
    """Take null members away, as the API server does; what is free of form keeps its own."""
    info = bare(info)
    if isinstance(info, inspect.StructType) and isinstance(value, Mapping):
        types = {field.encode_name: field.type for field in info.fields}
        kept = {key: member for key, member in value.items() if member is not None or key not in types}
        return {key: without_nulls(member, types.get(key)) for key, member in kept.items()}
    if isinstance(info, inspect.DictType) and isinstance(value, Mapping):
        if isinstance(info.value_type, inspect.AnyType):
            return value
        return {key: without_nulls(member, info.value_type) for key, member in value.items() if member is not None}
    if isinstance(info, inspect.VarTupleType) and isinstance(value, list):
        return [without_nulls(item, info.item_type) for item in value]
    return value


def bare(info: inspect.Type | None) -> inspect.Type | None:
    """Return a type without its annotations and without None."""
    while True:
        if isinstance(info, inspect.Metadata):
            info = info.type
        elif isinstance(info, inspect.UnionType):
            parts = [part for part in info.types if not isinstance(part, inspect.NoneType)]
            if len(parts) != 1:
                return info
            info = parts[0]
        else:
            return info


def explain(kind: type[Resource], error: msgspec.ValidationError) -> str:
    """Say where a document is wrong, what is wrong there, and what would be allowed."""
    found = REPORT.fullmatch(str(error))
    what, path = (found["what"], found["path"] or "$") if found else (str(error), "$")
    if isinstance(error.__cause__, Broken):
        what = str(error.__cause__)
        path += f".{error.__cause__.field}" if error.__cause__.field else ""
    elif missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        what = "required, and not there"
        path += f".{missing[1]}"
    else:
        what = worded(what, at(kind, path))
    return f"{path.removeprefix('$').removeprefix('.') or 'the resource'}: {what}"


def worded(what: str, info: inspect.Type | None) -> str:
    """Say what is wrong with a value of a type, in place of msgspec's words."""
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        return f"unknown field {unknown[1]!r}{alternatives(unknown[1], info)}"
    if choice := re.fullmatch(r"Invalid enum value (.*)", what, re.DOTALL):
        return f"{choice[1]} is not one of {', '.join(map(str, getattr(info, 'values', ())))}"
    if "RFC3339" in what or "datetime" in what:
        return "expected a time as in RFC 3339 with an offset, such as 2026-01-31T12:00:00Z"
    if "matching regex" in what:
        return f"does not match {pattern(info)}"
    return f"{what[:1].lower()}{what[1:].replace('`', '')}"


def pattern(info: inspect.Type | None) -> str:
    """Return what a text has to match, as the schema says it."""
    parts = info.types if isinstance(info, inspect.UnionType) else (info,)
    return "".join(re2(part.pattern or "") for part in parts if isinstance(part, inspect.StrType))


def alternatives(name: str, info: inspect.Type | None) -> str:
    """Say which fields there are, and which one may have been meant."""
    from difflib import get_close_matches

    names = [field.encode_name for field in getattr(info, "fields", ())]
    close = get_close_matches(name, names, n=1)
    guess = f", did you mean {close[0]!r}?" if close else ""
    return f"{guess} (there are: {', '.join(sorted(names))})"


def at(kind: type[Resource], path: str) -> inspect.Type | None:
    """Return the type at a path of an error."""
    info: inspect.Type | None = inspect.type_info(kind)
    for step in STEP.finditer(path.removeprefix("$")):
        info = bare(info)
        if isinstance(info, inspect.StructType):
            info = {field.encode_name: field.type for field in info.fields}.get(step["member"] or "")
        elif isinstance(info, inspect.VarTupleType):
            info = info.item_type
        elif isinstance(info, inspect.DictType):
            info = info.value_type
    return bare(info)
