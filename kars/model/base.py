r"""What every struct of a custom resource is made of: the frozen base, rules across fields, and a kind's names.

A field's type, bounds, default and words stand once, in its annotation; `schema` derives the OpenAPI schema from it
and msgspec enforces it. What a type cannot say is a `Rule`: the CEL that the API server runs beside the Python that
runs here.

Patterns end in `\Z`, Python's end of text; the schema has `$` instead, which means the same to the API server (RE2).
They name ASCII classes in full, because `\s`, `\d` and `\w` mean more characters in Python than there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, dataclass_transform

import msgspec
from msgspec import Meta

GROUP = "kars.azure.com"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"


def doc(text: str) -> Meta:
    """Describe a field, for `kubectl explain` and the reference."""
    return Meta(description=text)


def keyed(*keys: str, most: int) -> Meta:
    """Make a list a map by these fields of its items: no two alike, and server-side apply merges item by item."""
    return Meta(max_length=most, extra_json_schema={LIST_TYPE: "map", LIST_KEYS: list(keys)})


def unique(*, most: int) -> Meta:
    """Make a list of scalars a set: no two alike, and server-side apply merges item by item."""
    return Meta(max_length=most, extra_json_schema={LIST_TYPE: "set"})


def wire_name(attribute: str) -> str:
    """Return the name of an attribute on the wire: `public_key_b64u` is publicKeyB64u, `from_` is from."""
    first, *rest = attribute.strip("_").split("_")
    return first + "".join(part.capitalize() for part in rest)


def attribute_name(name: str) -> str:
    """Return the attribute of a name on the wire that is no special case."""
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name)


def re2(pattern: str) -> str:
    r"""Write a pattern for RE2, where `$` is the end of the text as `\Z` is in Python."""
    return pattern.replace(r"\Z", "$")


class Rule(msgspec.Struct, frozen=True):
    """What must hold across the fields of a struct.

    `cel` is what the API server evaluates with the object as `self`, `holds` the same in Python. A rule about a change
    names `oldSelf`; only the API server sees both sides of one, so it has no Python. `field` is the member at fault.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None
    field: str = ""
    reason: Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"] = (
        "FieldValueInvalid"
    )


class Broken(ValueError):
    """A rule or a list's uniqueness does not hold; msgspec turns it into a `ValidationError` with the path."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Frozen(msgspec.StructMeta):
    """Makes structs frozen and keyword-only without every class saying so."""

    def __new__(mcls, name: str, bases: tuple[type, ...], members: dict[str, Any], **config: Any) -> Any:  # noqa: ANN401
        """Make the class."""
        return super().__new__(mcls, name, bases, members, **{"kw_only": True, "frozen": True, **config})


class Model(msgspec.Struct, metaclass=Frozen, forbid_unknown_fields=True, omit_defaults=True, rename=wire_name):
    """The base of every struct: frozen, camelCase on the wire, unknown fields refused, defaults not written."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    def __post_init__(self) -> None:
        for rule in self.RULES:
            if rule.holds is not None and not rule.holds(self):
                raise Broken(rule.message, rule.field)
        for attribute, name, keys in unique_lists(type(self)):
            refuse_duplicates(getattr(self, attribute), name, keys)


UNIQUE: dict[type[Model], tuple[tuple[str, str, tuple[str, ...]], ...]] = {}


def unique_lists(kind: type[Model]) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Return the attribute, wire name and key attributes of each list of a struct whose items must differ."""
    found = UNIQUE.get(kind)
    if found is None:
        found = UNIQUE[kind] = tuple(find_unique_lists(kind))
    return found


def find_unique_lists(kind: type[Model]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Read them from the annotations."""
    info = msgspec.inspect.type_info(kind)
    found = []
    for field in getattr(info, "fields", ()):
        extra = metadata(field.type)
        if extra.get(LIST_TYPE) in {"map", "set"}:
            found.append((field.name, field.encode_name, tuple(extra.get(LIST_KEYS, ()))))
    return found


def metadata(info: msgspec.inspect.Type) -> dict[str, Any]:
    """Return the extra schema of a type, from every layer of its annotation."""
    extra: dict[str, Any] = {}
    while isinstance(info, msgspec.inspect.Metadata):
        extra = {**(info.extra_json_schema or {}), **extra}
        info = info.type
    return extra


def refuse_duplicates(items: tuple[Any, ...], name: str, keys: tuple[str, ...]) -> None:
    """Raise when two items are the same, or have the same keys."""
    seen = set()
    for item in items:
        value = tuple(getattr(item, key) for key in keys) if keys else item
        if value in seen:
            shown = ", ".join(value) if keys else value
            raise Broken(f"{shown!r} is there twice", name)
        seen.add(value)


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True, rename=wire_name):
    """The part of `metadata` that kars reads; the API server's own type, so other members are passed over."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    creation_timestamp: Annotated[datetime, Meta(tz=True)] | None = None
    deletion_timestamp: Annotated[datetime, Meta(tz=True)] | None = None
    owner_references: tuple[dict[str, Any], ...] = ()


class Column(msgspec.Struct, frozen=True):
    """A printer column of `kubectl get`; priority 1 shows with `-o wide` only."""

    name: str
    path: str
    type: Literal["string", "integer", "boolean", "date"] = "string"
    priority: int = 0


AGE = Column("Age", ".metadata.creationTimestamp", "date")
PHASE = Column("Phase", ".status.phase")
# With `-o wide`: why it is not ready, for kinds that have that condition.
WHY = (
    Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
    Column("Message", '.status.conditions[?(@.type=="Ready")].message', priority=1),
)


class Names(msgspec.Struct, frozen=True):
    """How the API server knows a kind."""

    plural: str
    short: str
    columns: tuple[Column, ...]
    namespaced: bool = True
    # Another short name, where kubectl takes the first for a kind of Kubernetes' own.
    also: tuple[str, ...] = ()
    # What `metadata.name` must be: longest name and pattern.
    longest: int = 63
    pattern: str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z"


class Resource(Model, tag_field="kind"):
    """A custom resource as the API server holds it; the kind is the class's name."""

    NAMES: ClassVar[Names]

    api_version: Literal["kars.azure.com/v1alpha1"]
    metadata: Metadata

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.metadata.name, self.NAMES)


def check_name(name: str, names: Names) -> None:
    """Hold `metadata.name` to what the kind's children can be called after."""
    import re

    if not name:
        return  # generated, or not applied yet; the API server refuses an object without a name itself
    if len(name) > names.longest:
        raise Broken(f"a name has at most {names.longest} characters, this one {len(name)}", "metadata.name")
    if not re.search(names.pattern, name):
        dots = ", '-' and '.'" if "." in names.pattern else " and '-'"
        raise Broken(
            f"a name has lower-case letters, digits{dots} only, and begins and ends with a letter or digit",
            "metadata.name",
        )
