"""Events of sandboxes: what people see beside a resource, once for each change."""

from __future__ import annotations

from collections.abc import Iterable

from kars.controller.cluster import Cluster
from kars.controller.images import IMAGES_VERIFIED
from kars.desired.allowlist import VERIFIED
from kars.desired.conditions import DEGRADED, READY
from kars.kube.types import Key
from kars.model.base import Resource
from kars.model.common import Condition

# What may go wrong while everything runs on as it was.
BESIDE = (VERIFIED, IMAGES_VERIFIED)


def announce(
    cluster: Cluster, kind: type[Resource], key: Key, before: Iterable[Condition], after: Iterable[Condition]
) -> None:
    """Tell an event when Ready changed its status or its reason, and when a signature does not count any more."""
    about = cluster.document(kind, key)
    if about is None:
        return
    known = {one.type: one for one in before}
    now = {one.type: one for one in after}
    bad = DEGRADED in now and now[DEGRADED].status == "True"
    if changed(known.get(READY), now[READY]):
        tell(cluster, about, now[READY], warning=bad)
    for aspect in BESIDE:
        found = now.get(aspect)
        if found is not None and found.status == "False" and aspect in known and changed(known[aspect], found):
            tell(cluster, about, found, warning=True)


def changed(before: Condition | None, after: Condition) -> bool:
    """Whether a condition has another status or reason."""
    return before is None or (before.status, before.reason) != (after.status, after.reason)


def tell(cluster: Cluster, about: dict[str, object], condition: Condition, *, warning: bool) -> None:
    """Tell a condition as an event."""
    cluster.recorder.tell(
        about,
        reason=condition.reason,
        action="Reconcile",
        note=condition.message or condition.reason,
        type="Warning" if warning else "Normal",
    )
