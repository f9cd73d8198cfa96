"""How conditions and phases come about; the status is built here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from kars.model.common import Condition


def merge(
    before: Iterable[Condition], wanted: Iterable[Condition], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return the conditions to write: `lastTransitionTime` moves only with the status, `observedGeneration` always."""
    raise NotImplementedError
