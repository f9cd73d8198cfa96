"""From recorded connections to an allowlist that a person can review."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kars import _core
from kars.errors import from_core


class Proposal(msgspec.Struct, frozen=True):
    """An `allowlist.json`, sorted, one endpoint per line; and what it leaves out, because only a person can grant it."""

    text: str
    left_out: list[str]


def proposal(rows: Sequence[object], *, collapse: bool = False) -> Proposal:
    """Propose the list that allows `rows` (host, port, method, path) and as little else as a list can say.

    With `collapse`, three or more names of one domain become `*.domain`.
    """
    try:
        text, left_out = _core.propose_egress(msgspec.json.encode(rows), collapse)
    except _core.CoreError as error:
        raise from_core(error) from error
    return Proposal(text, left_out)


def propose(rows: Sequence[object], *, collapse: bool = False) -> str:
    """Return the text of `proposal` alone."""
    return proposal(rows, collapse=collapse).text
