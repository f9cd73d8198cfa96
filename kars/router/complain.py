"""The last words of a process that could not start: the error, the hint, the exit status."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.errors import KarsError


def complain(error: KarsError) -> int:
    """Print the error and its hint on standard error; returns the exit status."""
    sys.stderr.write(f"error: {error}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")
    return error.exit_status
