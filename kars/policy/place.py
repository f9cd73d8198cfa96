"""Find what a rule's path means in a policy file: the line it stands on and its value."""

from __future__ import annotations

import json
import re

STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
GAP = re.compile(r"[ \t\r\n]*")


def steps(path: str) -> list[str | int]:
    """Take `models.deny[3]` apart."""
    return [name or int(index) for name, index in STEP.findall(path)]


def locate(text: str, path: str) -> tuple[int, object] | None:
    """Return the line (from 1) and the value at `path` of a JSON text; None where there is no such place."""
    try:
        start = gap(text, 0)
        for step in steps(path):
            found = member(text, start, step) if isinstance(step, str) else item(text, start, step)
            if found is None:
                return None
            start = found
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, IndexError):
        return None
    return text.count("\n", 0, start) + 1, value


def member(text: str, start: int, name: str) -> int | None:
    """Find where the value of an object's member begins."""
    if text[start] != "{":
        return None
    decoder = json.JSONDecoder()
    at = gap(text, start + 1)
    while text[at] == '"':
        key, at = decoder.raw_decode(text, at)
        at = gap(text, text.index(":", at) + 1)
        if key == name:
            return at
        _, at = decoder.raw_decode(text, at)
        at = gap(text, gap(text, at) + 1)
    return None


def item(text: str, start: int, index: int) -> int | None:
    """Find where a list's item begins."""
    if text[start] != "[":
        return None
    decoder = json.JSONDecoder()
    at = gap(text, start + 1)
    for _ in range(index):
        _, at = decoder.raw_decode(text, at)
        at = gap(text, at)
        if text[at] != ",":
            return None
        at = gap(text, at + 1)
    return None if text[at] == "]" else at


def gap(text: str, at: int) -> int:
    """Pass over white space."""
    found = GAP.match(text, at)
    return at if found is None else found.end()
