"""The command line: one file per command, each parses, calls and prints. Only what a call needs is imported."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `kars`; the exit status. `kars router` goes past click: it is a sidecar's start."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["router"] and "--help" not in given and "-h" not in given:
        from kars.router import process

        return process.main(given[1:])
    from kars.cli import app

    return app.run(given)
