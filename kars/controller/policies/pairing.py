"""KarsPairing: a pairing's time. Whom it is bound to is for the mesh to say, and this controller has none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from kars.controller.cluster import Cluster
from kars.controller.policies import status
from kars.controller.reconcile import Done
from kars.desired.conditions import Standing, standing
from kars.kube.types import Key
from kars.model.base import Resource
from kars.model.pairing import KarsPairing

# Pairings that never change again.
OVER = frozenset({"Expired", "Revoked"})


class Pairings:
    """Reconciles KarsPairings."""

    kind: ClassVar[type[Resource]] = KarsPairing
    finalizer: ClassVar[str] = ""

    async def reconcile(self, resource: Resource, cluster: Cluster) -> Done:
        """End a pairing when its time is over; say what it waits for until then."""
        assert isinstance(resource, KarsPairing)  # noqa: S101 - the engine calls with its kind only
        phase = resource.status.phase if resource.status is not None else None
        left = (resource.spec.expires_at - cluster.now()).total_seconds()
        if phase not in OVER:
            phase = "Expired" if left <= 0 else phase or "PendingPairing"
        # Everything else in the status is the other side's: who it is and what it used.
        written = status.of(resource, told(phase), status.members(resource), now=cluster.now())
        written.pop("observedGeneration")  # the kind has none
        await cluster.write_status(resource, written)
        return Done() if phase in OVER else Done(after=max(1.0, left))

    async def finalize(self, resource: Resource, cluster: Cluster) -> bool:  # noqa: ARG002 - the engine's call
        """Nothing was made."""
        return True

    def touched(self, kind: str, key: Key, cluster: Cluster) -> Iterable[Key]:  # noqa: ARG002 - the engine's call
        """Nothing else wakes it."""
        return ()


def told(phase: str | None) -> Standing:
    """Say how a pairing stands."""
    if phase == "Active":
        return standing("Active", ready=(True, "Paired", ""), progressing=(False, "Paired"), state="NotApplicable")
    if phase in OVER:
        return standing(
            str(phase), ready=(False, str(phase), "it is over"), progressing=(False, str(phase)), state="NotApplicable"
        )
    message = "the other side has not shown the secret; this controller has no mesh over which it could"
    return standing(
        "PendingPairing",
        ready=(False, "AwaitingPeer", message),
        progressing=(True, "AwaitingPeer"),
        state="NotApplicable",
    )
