"""Derive structural OpenAPI v3 schemas from the structs, as the API server takes them (apiextensions.k8s.io/v1).

Structural schemas know no `$ref`, so every struct is written out where it is used. `null` needs no mention: the API
server takes null members away before it validates, and `decode` does the same.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from kars.model.base import Model, Names, Resource, Rule, re2

Schema = dict[str, Any]

PRESERVE = "x-kubernetes-preserve-unknown-fields"


def of(kind: type[Resource]) -> Schema:
    """Return the schema of a kind's whole object."""
    spec = derive(inspect.type_info(kind))
    properties = spec["properties"]
    # The API server validates apiVersion, kind and metadata itself, and lets a schema only narrow the name.
    spec["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object", "properties": {"name": name(kind.NAMES)}},
        "spec": properties["spec"],
        "status": properties["status"],
    }
    spec["required"] = ["spec"]
    return spec


def name(names: Names) -> Schema:
    """Return what a kind's `metadata.name` must be."""
    return {"type": "string", "maxLength": names.longest, "pattern": re2(names.pattern)}


def derive(info: inspect.Type) -> Schema:
    """Return the schema of a type, and of everything in it."""
    extra: Schema = {}
    while isinstance(info, inspect.Metadata):
        extra = {**(info.extra_json_schema or {}), **extra}
        info = info.type
    if isinstance(info, inspect.UnionType):
        found = union(info)
    elif isinstance(info, inspect.StructType):
        found = struct(info)
    elif isinstance(info, inspect.VarTupleType):
        found = compact(
            {
                "type": "array",
                "items": derive(info.item_type),
                "minItems": info.min_length,
                "maxItems": info.max_length,
            }
        )
    elif isinstance(info, inspect.DictType):
        found = mapping(info)
    else:
        found = scalar(info)
    return ordered({**found, **extra})


def union(info: inspect.UnionType) -> Schema:
    """Return the schema of an optional type, or of a quantity: a number or a text."""
    parts = [part for part in info.types if not isinstance(part, inspect.NoneType)]
    if len(parts) == 1:
        return derive(parts[0])
    if {type(part) for part in parts} != {inspect.IntType, inspect.StrType}:
        raise TypeError(f"no structural schema has the union {info}")
    bounds = {key: bound for part in parts for key, bound in scalar(part).items() if key not in {"type", "format"}}
    return {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True, **bounds}


def struct(info: inspect.StructType) -> Schema:
    """Return the schema of a struct with its rules."""
    properties = {}
    for field in info.fields:
        member = derive(field.type)
        if field.default is not msgspec.NODEFAULT and field.default is not None and field.default != ():
            member["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
        properties[field.encode_name] = ordered(member)
    rules = info.cls.RULES if issubclass(info.cls, Model) else ()
    found = {
        "description": " ".join((info.cls.__doc__ or "").split("\n\n")[0].split()),
        "type": "object",
        "properties": properties,
        "required": [field.encode_name for field in info.fields if field.required] or None,
        "x-kubernetes-validations": [validation(rule) for rule in rules] or None,
    }
    return compact(found)


def validation(rule: Rule) -> Schema:
    """Return a rule as the API server takes it."""
    field = f".{rule.field}" if rule.field else None
    return compact({"rule": rule.cel, "message": rule.message, "reason": rule.reason, "fieldPath": field})


def mapping(info: inspect.DictType) -> Schema:
    """Return the schema of a map: free of form where its values are."""
    if isinstance(info.value_type, inspect.AnyType):
        return {"type": "object", PRESERVE: True}
    return compact(
        {
            "type": "object",
            "additionalProperties": derive(info.value_type),
            "minProperties": info.min_length,
            "maxProperties": info.max_length,
        }
    )


def scalar(info: inspect.Type) -> Schema:
    """Return the schema of a text, number, flag, time or choice."""
    if isinstance(info, inspect.StrType):
        return compact(
            {
                "type": "string",
                "minLength": info.min_length,
                "maxLength": info.max_length,
                "pattern": re2(info.pattern) if info.pattern else None,
            }
        )
    if isinstance(info, inspect.IntType):
        small = info.le is not None and info.le < 2**31
        return compact(
            {
                "type": "integer",
                "format": "int32" if small else "int64",
                "minimum": info.ge,
                "maximum": info.le,
            }
        )
    if isinstance(info, inspect.BoolType):
        return {"type": "boolean"}
    if isinstance(info, inspect.DateTimeType):
        return {"type": "string"}
    if isinstance(info, inspect.LiteralType):
        return {"type": "string", "enum": list(info.values)}
    raise TypeError(f"no structural schema has the type {info}")


def compact(schema: Schema) -> Schema:
    """Leave out what is not said."""
    return {key: value for key, value in schema.items() if value is not None}


FIRST = ("description", "type", "format", "default", "enum")


def ordered(schema: Schema) -> Schema:
    """Put first what a reader looks for first."""
    head = {key: schema[key] for key in FIRST if key in schema}
    return head | {key: value for key, value in schema.items() if key not in head}
