"""The status of a resource as the API has it: what it was, and what it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from kars.desired.conditions import Standing, merge
from kars.model.base import Resource
from kars.model.common import Condition
from kars.policy.compiled.egress import instant

__all__ = ["condition", "conditions", "instant", "members", "of"]


def members(resource: Resource) -> dict[str, Any]:
    """Return the status that a resource has; empty when it has none."""
    status = getattr(resource, "status", None)
    found: dict[str, Any] = {} if status is None else msgspec.json.decode(msgspec.json.encode(status))
    return found


def conditions(resource: Resource) -> tuple[Condition, ...]:
    """Return the conditions that a resource has."""
    status = getattr(resource, "status", None)
    found: tuple[Condition, ...] = () if status is None else status.conditions
    return found


def condition(resource: Resource, kind: str = "Ready") -> Condition | None:
    """Return one of the conditions that a resource has."""
    return next((one for one in conditions(resource) if one.type == kind), None)


def of(resource: Resource, standing: Standing, known: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    """Return the whole status: what is known, phase and conditions. Members that are None go."""
    generation = resource.metadata.generation
    merged = merge(conditions(resource), standing.conditions, generation=generation, now=now)
    kept = {name: value for name, value in known.items() if value is not None}
    return {
        **kept,
        "phase": standing.phase,
        "observedGeneration": generation,
        "conditions": msgspec.json.decode(msgspec.json.encode(merged)),
    }
