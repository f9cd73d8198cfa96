"""Who reconciles what."""

from __future__ import annotations

from collections.abc import Sequence

from kars.controller import policies
from kars.controller.reconcile import Reconciler
from kars.controller.sandboxes import Sandboxes
from kars.settings.controller import Controller


def reconcilers(settings: Controller) -> Sequence[Reconciler]:  # noqa: ARG001 - a `Roster`
    """Return a reconciler of every kind."""
    return (Sandboxes(), *policies.reconcilers())
