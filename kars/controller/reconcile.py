"""What a reconciler is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import msgspec

from kars.kube.types import Key
from kars.model.base import Resource

if TYPE_CHECKING:
    from kars.controller.cluster import Cluster


class Done(msgspec.Struct, frozen=True):
    """The resource is as it should be, or says in its status why not; `after`: look again in so many seconds."""

    after: float | None = None


class Temporary(Exception):
    """Try again after `delay` seconds (with jitter; grows with every failure when None)."""

    def __init__(self, reason: str, *, delay: float | None = None) -> None:
        super().__init__(reason)
        self.delay = delay


class Reconciler(Protocol):
    """Brings the cluster to what one kind of resource says. Calls for one key never overlap."""

    @property
    def kind(self) -> type[Resource]:
        """The kind that it reconciles."""
        ...

    @property
    def finalizer(self) -> str:
        """What keeps a resource until `finalize` is done; empty: none is set, and `finalize` is never called."""
        ...

    async def reconcile(self, resource: Resource, cluster: Cluster) -> Done:
        """Make it so. The engine has set the finalizer, and calls again when anything it watches changes."""
        ...

    async def finalize(self, resource: Resource, cluster: Cluster) -> bool:
        """Take down what it made; true when that is done and the finalizer may go.

        Of a resource that is not valid there is `metadata` only; touching its spec is an AttributeError, which counts
        as a failure.
        """
        ...

    def touched(self, kind: str, key: Key, cluster: Cluster) -> Iterable[Key]:
        """Which resources of this kind to look at again because another object (of `kind`, ours or built in) changed.

        `kind` may be the reconciler's own: then `key` itself is looked at anyway, and this names its siblings.
        """
        ...
