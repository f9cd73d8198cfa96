"""JSON and YAML as data and nothing else: no duplicate member, no alias, no tag, bounded depth and number of nodes.

YAML's plain scalars mean what YAML 1.2's core schema says, decimal numbers only, so `0443`, `4:43`, `yes` and `1_000`
are texts here and not 291, 283, true and 1000.
"""

from __future__ import annotations

import json as standard
import re
from collections.abc import Iterator
from typing import Any

# Deeper than any document that kars reads; a reader that recurses takes this many levels anywhere.
DEPTH = 32
# Scalars, mappings and sequences: an allowlist of 4096 endpoints has some 25,000.
NODES = 100_000
# A number that people write; longer ones cost quadratic time to read.
DIGITS = 40

INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)?(?:\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?\Z")
WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "Null": None, "~": None, "": None}


class NotCanonical(ValueError):
    """A document that is not read; `line` counts from 1, and is 0 where none can be named."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {message}" if line else message)
        self.line = line


def text(data: bytes) -> str:
    """Decode UTF-8 without a byte order mark."""
    try:
        decoded = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotCanonical("not UTF-8", data.count(b"\n", 0, error.start) + 1) from None
    if decoded.startswith("\ufeff"):
        raise NotCanonical("a byte order mark", 1)
    return decoded


def json(data: bytes) -> Any:  # noqa: ANN401 - a document of any shape
    """Read JSON; `NotCanonical` names the line."""
    decoded = text(data)
    if nested(decoded) > DEPTH:
        raise NotCanonical(f"nested deeper than {DEPTH} levels")
    try:
        return standard.loads(decoded, object_pairs_hook=members, parse_constant=no_constant, parse_int=integer)
    except standard.JSONDecodeError as error:
        raise NotCanonical(error.msg, error.lineno) from None


def nested(document: str) -> int:
    """Return at least how deep a JSON text nests: brackets in texts count, too, unless they are closed there."""
    depth = most = 0
    inside = False
    for token in re.finditer(r'\\.|["\[\]{}]', document, re.DOTALL):
        char = token[0]
        if char == '"':
            inside = not inside
        elif not inside and char in "[{":
            depth += 1
            most = max(most, depth)
        elif not inside and char in "]}":
            depth -= 1
    return most


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members."""
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NotCanonical(f"{twice[:64]!r} is there twice")
    return made


def no_constant(name: str) -> float:
    """Refuse NaN and Infinity, which are no JSON."""
    raise NotCanonical(f"{name} is no JSON")


def integer(digits: str) -> int:
    """Read a whole number."""
    if len(digits) > DIGITS:
        raise NotCanonical(f"a number of more than {DIGITS} digits")
    return int(digits)


def yaml(data: bytes) -> Any:  # noqa: ANN401 - a document of any shape
    """Read a YAML document; `NotCanonical` names the line."""
    import yaml as pyyaml

    loader = getattr(pyyaml, "CSafeLoader", pyyaml.SafeLoader)
    decoded = text(data)
    try:
        return Builder(pyyaml.parse(decoded, Loader=loader)).document()
    except pyyaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotCanonical(error.problem or "not YAML", mark.line + 1 if mark else 0) from None
    except pyyaml.YAMLError:
        raise NotCanonical("not YAML: a character that it cannot have") from None


class Builder:
    """Builds a document from the parser's events, none of which can call for more than data."""

    def __init__(self, events: Iterator[Any]) -> None:
        self.events = events
        self.nodes = 0

    def document(self) -> Any:  # noqa: ANN401 - a document of any shape
        """Build the only document."""
        self.take()  # the stream's start
        start = self.take()
        if kind(start) == "StreamEnd":
            raise NotCanonical("nothing", 1)
        if start.version or start.tags:
            raise NotCanonical("a directive", 1)
        made = self.node(self.take(), 1)
        self.take()  # the document's end
        after = self.take()
        if kind(after) != "StreamEnd":
            raise NotCanonical("a second document", line_of(after))
        return made

    def take(self) -> Any:  # noqa: ANN401 - an event of pyyaml
        """Return the next event."""
        return next(self.events)

    def node(self, event: Any, depth: int) -> Any:  # noqa: ANN401 - an event in, a document out
        """Build what an event begins."""
        self.nodes += 1
        if depth > DEPTH:
            raise NotCanonical(f"nested deeper than {DEPTH} levels", line_of(event))
        if self.nodes > NODES:
            raise NotCanonical(f"more than {NODES} values", line_of(event))
        name = kind(event)
        if name == "Alias" or event.anchor is not None:
            raise NotCanonical("an anchor or alias", line_of(event))
        if event.tag is not None:
            raise NotCanonical("a tag", line_of(event))
        if name == "Scalar":
            return scalar(event)
        return self.mapping(depth) if name == "MappingStart" else self.sequence(depth)

    def sequence(self, depth: int) -> list[Any]:
        """Build a list."""
        made = []
        while kind(event := self.take()) != "SequenceEnd":
            made.append(self.node(event, depth + 1))
        return made

    def mapping(self, depth: int) -> dict[str, Any]:
        """Build a mapping, whose keys are texts and differ."""
        made: dict[str, Any] = {}
        while kind(event := self.take()) != "MappingEnd":
            name = self.node(event, depth + 1)
            if not isinstance(name, str):
                raise NotCanonical("a key that is not a text", line_of(event))
            if name in made:
                raise NotCanonical(f"{name[:64]!r} is there twice", line_of(event))
            made[name] = self.node(self.take(), depth + 1)
        return made


def kind(event: Any) -> str:  # noqa: ANN401 - an event of pyyaml
    """Return an event's name without its ending."""
    return type(event).__name__.removesuffix("Event")


def line_of(event: Any) -> int:  # noqa: ANN401 - an event of pyyaml
    """Return the line of an event, from 1."""
    return int(event.start_mark.line) + 1


def scalar(event: Any) -> Any:  # noqa: ANN401 - an event of pyyaml in, a scalar out
    """Read a scalar: quoted and block ones are texts, plain ones by YAML 1.2's core schema."""
    value: str = event.value
    if not event.implicit[0]:
        return value
    if value in WORDS:
        return WORDS[value]
    if len(value) <= DIGITS and INTEGER.match(value):
        return int(value)
    if len(value) <= DIGITS and FLOAT.match(value):
        return float(value)
    return value
