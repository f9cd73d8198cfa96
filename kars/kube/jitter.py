"""Chance, so that many who wait for the same thing do not all come back at once."""

from __future__ import annotations

import random


def between(low: float, high: float) -> float:
    """Return a number between two."""
    return random.uniform(low, high)  # noqa: S311 - nobody gains from guessing it
