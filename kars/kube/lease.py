"""Leader election over a Lease: optimistic locking on every write, release on the way out."""

from __future__ import annotations

from kars.kube.client import Client
from kars.kube.types import Key


class Lost(Exception):
    """Another process may lead now; whoever led must stop writing at once."""


class Lease:
    """One candidate for one Lease. Times in seconds; `renew` must be well below `duration`."""

    def __init__(self, client: Client, key: Key, *, identity: str, duration: float = 15.0, renew: float = 5.0) -> None:
        self.identity = identity

    async def acquire(self) -> None:
        """Wait until this candidate leads. A holder counts as gone when its renewals stop for `duration` by our clock."""
        raise NotImplementedError

    async def hold(self) -> None:
        """Renew until cancelled; `Lost` when that did not succeed in time or another holder is seen."""
        raise NotImplementedError

    async def release(self) -> None:
        """Give the lease up so that another need not wait; never raises."""
        raise NotImplementedError
