"""Who reconciles what."""

from __future__ import annotations

from collections.abc import Sequence

from kars.controller.policies.publisher import Publisher
from kars.controller.policies.table import INFERENCE, TOOLS
from kars.controller.reconcile import Reconciler
from kars.controller.sandboxes import Sandboxes
from kars.settings.controller import Controller


def reconcilers(settings: Controller) -> Sequence[Reconciler]:  # noqa: ARG001 - a `Roster`
    """Return a reconciler of every kind."""
    return (Sandboxes(), Publisher(INFERENCE), Publisher(TOOLS))
