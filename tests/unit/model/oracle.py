"""Validates an object by its generated schema alone, the way the API server does, with engines that are not ours.

JSON Schema is the `jsonschema` package's, CEL and RE2 are Google's. What only the API server knows (unknown fields, nulls,
defaults, list types, rules in schemas) is here in a few lines each.
"""

import copy
from functools import cache

from cel_expr_python import cel
from jsonschema import Draft202012Validator, ValidationError, validators

ENV = cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN})


@cache
def compiled(expression):
    return ENV.compile(expression)


def holds(expression, value, old=None):
    result = compiled(expression).eval(data={"self": value, "oldSelf": old}).value()
    if not isinstance(result, bool):
        assert "timestamp" in expression, (expression, result)  # the only conversion that may fail, which refuses, too
        return False
    return result


def pattern(_, wanted, value, __):
    if isinstance(value, str) and not holds(f"self.matches({quoted(wanted)})", value):
        yield ValidationError(f"{value!r} does not match {wanted}")


def quoted(text):
    return "r'" + text + "'" if "'" not in text else 'r"' + text + '"'


Structural = validators.extend(Draft202012Validator, {"pattern": pattern})


def refusals(schema, document, old=None):
    """What the API server would say against the document; nothing when it takes it."""
    document = copy.deepcopy(document)
    found = list(unknown(schema, document, "", root=True))
    prepare(schema, document)
    found += [f"{error.json_path}: {error.message}" for error in Structural(schema).iter_errors(document)]
    if found:
        return found  # rules are only run on what has the right shape
    if old is not None:
        old = copy.deepcopy(old)
        prepare(schema, old)
    return [*duplicates(schema, document), *broken(schema, document, old)]


def prepare(schema, value):
    """Take nulls away and fill defaults in, in place."""
    if isinstance(value, dict):
        for name, member in schema.get("properties", {}).items():
            if name in value and value[name] is None:
                del value[name]
            if name not in value and "default" in member:
                value[name] = copy.deepcopy(member["default"])
            if name in value:
                prepare(member, value[name])
        values = schema.get("additionalProperties")
        for name in list(value) if values else ():
            if value[name] is None:
                del value[name]
            else:
                prepare(values, value[name])
    elif isinstance(value, list):
        for item in value:
            prepare(schema.get("items", {}), item)


def unknown(schema, value, path, *, root=False):
    if isinstance(value, dict) and schema.get("type") == "object":
        known = schema.get("properties", {})
        free = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
        for name, member in value.items():
            if root and name == "metadata":
                continue
            if name in known:
                yield from unknown(known[name], member, f"{path}.{name}")
            elif "additionalProperties" in schema:
                yield from unknown(schema["additionalProperties"], member, f"{path}.{name}")
            elif not free:
                yield f"{path}.{name}: unknown field"
    elif isinstance(value, list):
        for item in value:
            yield from unknown(schema.get("items", {}), item, f"{path}[]")


def nodes(schema, value, old, path=""):
    """Every part of a value with its schema and what it was before."""
    yield schema, value, old, path
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, member in schema.get("properties", {}).items():
            if name in value:
                yield from nodes(member, value[name], before.get(name), f"{path}.{name}")
        values = schema.get("additionalProperties")
        for name in value if values else ():
            yield from nodes(values, value[name], before.get(name), f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:  # atomic lists have no before; none of our rules about changes is in a list
            yield from nodes(schema.get("items", {}), item, None, f"{path}[]")


def duplicates(schema, document):
    for part, value, _, path in nodes(schema, document, None):
        kind = part.get("x-kubernetes-list-type")
        if kind in {"map", "set"}:
            keys = part.get("x-kubernetes-list-map-keys")
            seen = [tuple(item[key] for key in keys) if keys else item for item in value]
            if len(set(seen)) != len(seen):
                yield f"{path}: duplicate value"


def broken(schema, document, old):
    for part, value, before, path in nodes(schema, document, old):
        for rule in part.get("x-kubernetes-validations", ()):
            if "oldSelf" in rule["rule"] and before is None:
                continue
            if not holds(rule["rule"], value, before):
                yield f"{path}: {rule['message']}"
