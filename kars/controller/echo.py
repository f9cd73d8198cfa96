"""What the routers say is in force: `GET /internal/policy-status` of each pod, in parallel, with deadlines."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kars.kube.types import Key


class Entry(msgspec.Struct, frozen=True):
    """One kind of bundle in one router."""

    kind: str
    digest: str | None = None
    last_error: str | None = None


class Heard(msgspec.Struct, frozen=True):
    """What one sandbox's routers said, or why they could not be asked; `agrees` needs every ready pod to agree."""

    sandbox: Key
    entries: tuple[tuple[Entry, ...], ...] = ()  # of each pod
    error: str = ""

    def digest(self, kind: str) -> str | None:
        """Return the digest that all pods have in force, None when they differ, have none or could not be asked."""
        raise NotImplementedError

    def last_error(self, kind: str) -> str | None:
        """Return the first error that a pod reports for a kind."""
        raise NotImplementedError


class Echo:
    """Asks routers; answers are shared for a moment, so that many policies of one sandbox ask once."""

    async def ask(self, sandboxes: Iterable[Key], *, fresh: bool = False) -> dict[Key, Heard]:
        """Ask every sandbox at once (bounded), each within its deadline; sandboxes are keys of KarsSandboxes."""
        raise NotImplementedError
