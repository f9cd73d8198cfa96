"""The only reader of the environment.

The router's own settings are parsed in Rust from one block (`block`), so that a variable has one parser and one
table. What Python decides by itself (colours, a screen or a pipe) is read here too and handed on as plain values.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO


def block(overrides: Mapping[str, str] | None = None, *, environ: Mapping[bytes, bytes] | None = None) -> bytes:
    """Join the environment, with `overrides` on top, to NUL-separated `NAME=VALUE` as `_core.Engine` takes it."""
    merged = dict(os.environb if environ is None else environ)
    for name, value in (overrides or {}).items():
        merged[os.fsencode(name)] = os.fsencode(value)
    return b"\0".join(name + b"=" + value for name, value in merged.items())


def variable(name: str, default: str, *, environ: Mapping[str, str] | None = None) -> str:
    """Read one of the router's variables for a tool that looks at what the router wrote; empty counts as unset."""
    env = os.environ if environ is None else environ
    return env.get(name) or default


def child(overrides: Mapping[str, str]) -> dict[str, str]:
    """Make the environment of a process that we start: ours, with `overrides` on top."""
    return {**os.environ, **overrides}


def colours(stream: TextIO, *, environ: Mapping[str, str] | None = None) -> bool:
    """Say whether to colour `stream`: NO_COLOR wins, then FORCE_COLOR, then whether it is a terminal that can."""
    env = os.environ if environ is None else environ
    if env.get("NO_COLOR"):
        return False
    if env.get("FORCE_COLOR"):
        return True
    return env.get("TERM") != "dumb" and stream.isatty()
