"""Objects that are nested deeper than a decoder goes, cut so that the rest of an answer can be read.

An API server takes JSON of 10 000 levels (sigs.k8s.io/json), a decoder here some 900. Whoever may write one resource
with a member of any shape could else silence the list and the watch of its whole kind, for everybody.
"""

from __future__ import annotations

import re
from typing import Any

from kars.kube.types import Object

# Levels of an answer that are kept when it has too many: far more than any kind of the API has by itself (the deepest,
# definitions of resources with their schemas, stay below 60).
DEEPEST = 128
# What stands for an object's member that was nested deeper, and for its innards.
TOO_DEEP = "\ufffd nested too deep"
MARK = f'"{TOO_DEEP}"'.encode()
# Everything up to the next bracket outside a text. Nothing is given back, so the time is that of the bytes.
BRACKET = re.compile(rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+[\[\]{}]', re.DOTALL)
OPENING = frozenset(b"[{")


def cut(raw: bytes, deepest: int = DEEPEST) -> bytes:
    """Return JSON in which everything deeper stands as a mark; what is no JSON stays none."""
    parts: list[bytes] = []
    depth = kept = place = 0
    while found := BRACKET.match(raw, place):
        place = found.end()
        if raw[place - 1] in OPENING:
            depth += 1
            if depth == deepest + 1:
                parts.append(raw[kept : place - 1])
        else:
            depth -= 1
            if depth == deepest:
                parts.append(MARK)
                kept = place
    return b"".join((*parts, raw[kept:]))


def shallow(value: Object) -> Object:
    """Return an object whose members say that they were cut, where they were; who owns which field goes with them."""
    if not marked(value):
        return value
    kept = {name: TOO_DEEP if marked(member) else member for name, member in value.items() if name != "metadata"}
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        kept["metadata"] = {name: member for name, member in metadata.items() if not marked(member)}
    return kept


def marked(value: Any) -> bool:  # noqa: ANN401 - a document of any shape
    """Whether something in a document was cut."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
        elif one == TOO_DEEP:
            return True
    return False
