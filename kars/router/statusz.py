"""The engine's status for people and for tools. Its shape is the core's; nothing here names a field of it twice."""

from __future__ import annotations

import msgspec

# What /configz shows of the status: what was configured, and which policy is in force.
CONFIG = ("version", "sandbox", "policy", "upstreams", "settings")


def config(status: bytes) -> bytes:
    """Cut the status down to the configuration."""
    whole = msgspec.json.decode(status, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({name: whole[name] for name in CONFIG if name in whole})


def page(status: bytes) -> str:
    """Lay the status out as indented `name  value` lines, one block per section."""
    return "kars router\n\n" + "\n".join(lines(msgspec.json.decode(status), 0)) + "\n"


def lines(value: object, depth: int) -> list[str]:
    """Lay out one level; depth is bounded by the core's own fixed shape."""
    pad = "  " * depth
    if isinstance(value, list):
        return [line for item in value for line in item_lines(item, depth)] or [f"{pad}(none)"]
    if not isinstance(value, dict):
        return [f"{pad}{plain(value)}"]
    width = max((len(str(name)) for name in value), default=0)
    out = []
    for name, inner in value.items():
        if isinstance(inner, dict | list):
            out.append(f"{pad}{name}:")
            out.extend(lines(inner, depth + 1))
        else:
            out.append(f"{pad}{name:<{width}}  {plain(inner)}")
    return out


def item_lines(item: object, depth: int) -> list[str]:
    """Lay out one item of a list, its first line with a dash."""
    inner = lines(item, depth + 1)
    return ["  " * depth + "- " + inner[0].lstrip(), *inner[1:]] if inner else []


def plain(value: object) -> str:
    """Write a scalar as a person would."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
