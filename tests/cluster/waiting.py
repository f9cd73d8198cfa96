"""Wait until something holds, and say what was there instead when it does not."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

STEP_SECONDS = 0.05


def wait(condition: Callable[[], Found], seconds: float = 20.0, *, what: str = "") -> Found:
    """Ask until the answer is true, and return it. An AssertionError has the last answer, or the last exception.

    What `condition` raises counts as "not yet": objects that are not there and assertions that do not hold.
    """
    deadline = time.monotonic() + seconds
    while True:
        last: object
        try:
            found = condition()
        except (AssertionError, LookupError, OSError, ValueError) as error:
            last = error
        else:
            if found:
                return found
            last = found
        if time.monotonic() > deadline:
            what = what or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"{what}: not after {seconds} s; the last answer was {last!r}")
        time.sleep(STEP_SECONDS)
