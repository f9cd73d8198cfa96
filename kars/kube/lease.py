"""Leader election over a Lease: optimistic locking on every write, release on the way out.

No clock but our own monotonic one decides: a holder is gone when nobody has written the Lease for its duration since we
first saw it so. What its times say does not count: somebody may set them to the same ones again and again. A leader
counts from before it asked for its renewal and gives up at two thirds of the duration, so that it has stopped when
another may start (as client-go has it: lease duration, renew deadline, retry period).
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any

from kars.kube import jitter
from kars.kube.client import Client
from kars.kube.errors import ApiError, Conflict, Missing
from kars.kube.types import LEASE, Key, Object

log = logging.getLogger("kars.kube")

# Part of the duration within which a renewal must succeed.
DEADLINE = 2 / 3
# Part of `renew` between two looks of a candidate, and between two attempts of a leader whose renewal failed.
RETRY = 0.4
# What a holder may claim, in seconds; a record with a year in it must not lock everybody out.
LONGEST = 600.0
# Seconds that giving up may take when the process ends.
RELEASE = 3.0


class Lost(Exception):
    """Another process may lead now; whoever led must stop writing at once. `taken`: another one does."""

    def __init__(self, message: str, *, taken: bool = False) -> None:
        super().__init__(message)
        self.taken = taken


class Lease:
    """One candidate for one Lease. Times in seconds; `renew` must be well below `duration`."""

    def __init__(self, client: Client, key: Key, *, identity: str, duration: float = 15.0, renew: float = 5.0) -> None:
        if not identity or not 0 < renew <= duration / 2:
            raise ValueError(f"a lease needs an identity and renew {renew} at most half of duration {duration}")
        self.client = client
        self.key = key
        self.identity = identity
        self.duration = duration
        self.renew = renew
        self.lease: Object | None = None  # as it stands after our last write, while we hold it
        self.stamps: set[str] = set()  # the renewTime of every write since the last that we know succeeded
        self.renewed = float("-inf")  # when the last successful renewal was asked for
        self.observed: dict[str, Any] | None = None
        self.version = ""  # of the Lease as it was last seen
        self.since = 0.0  # when that was first seen

    def leads(self) -> bool:
        """Say whether this candidate leads by its own clock; ask right before a write that must not be doubled."""
        return self.lease is not None and now() - self.renewed < self.duration * DEADLINE

    async def acquire(self) -> None:
        """Wait until this candidate leads.

        A holder counts as gone when its renewals stop, by our clock, for the duration that it claims itself.
        """
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self.renew):
                    if await self.attempt():
                        log.info("kube.lease lease=%s holder=%s", self.key, self.identity)
                        return
                failures = 0
            except (ApiError, TimeoutError) as error:
                if failures % 10 == 0:
                    log.warning("kube.lease lease=%s error=%s", self.key, error or "no answer in time")
                failures += 1
            await asyncio.sleep(self.renew * RETRY * jitter.between(0.8, 1.2))

    async def attempt(self) -> bool:
        """Look once, and take the lease when nobody holds it."""
        try:
            found = await self.client.get(LEASE, self.key)
        except Missing:
            # Somebody deleted it; whoever held it goes on until its time is over, or writes it anew.
            if self.observed is not None and self.held(self.observed):
                return False
            return await self.write(self.blank({}))
        spec, version = found.get("spec") or {}, found["metadata"]["resourceVersion"]
        if version != self.version:
            if holder := another(spec, self.observed):
                log.info("kube.lease lease=%s standby holder=%s", self.key, holder)
            self.observed, self.version, self.since = spec, version, now()
        return False if self.held(spec) else await self.write(found)

    def held(self, spec: dict[str, Any]) -> bool:
        """Whether what was observed is another's, and may still hold."""
        holds = bool(spec.get("holderIdentity")) and now() - self.since < claimed(spec, self.duration)
        return holds and not self.wrote(spec)

    def blank(self, spec: dict[str, Any]) -> Object:
        """Return the lease where there is none."""
        metadata = {"namespace": self.key.namespace, "name": self.key.name}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}

    async def write(self, found: Object) -> bool:
        """Write ourselves into the lease as it was found; false when somebody was faster."""
        spec = dict(found.get("spec") or {})
        began, stamp = now(), moment()
        if self.lease is None:
            spec["acquireTime"] = stamp
            if "holderIdentity" in spec and spec["holderIdentity"] != self.identity:
                spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
            spec.setdefault("leaseTransitions", 0)
        # Whole seconds is what the API takes; never less than we count ourselves.
        duration = max(1, int(-(-self.duration // 1)))
        spec |= {"holderIdentity": self.identity, "leaseDurationSeconds": duration, "renewTime": stamp}
        self.stamps.add(stamp)
        made = {**found, "spec": spec}
        exists = "resourceVersion" in found["metadata"]
        try:
            self.lease = await (self.client.replace(made) if exists else self.client.create(made))
        except Conflict:
            return False
        except Missing:
            if exists:
                return False
            raise  # the namespace is not there
        self.renewed = began
        self.stamps = {stamp}
        return True

    async def hold(self) -> None:
        """Renew until cancelled; `Lost` when that did not succeed in time or another holder is seen."""
        while self.lease is not None:
            wait = self.renew * jitter.between(0.9, 1.0)
            while True:
                left = self.renewed + self.duration * DEADLINE - now()
                if left <= 0:
                    self.lease = None
                    raise Lost(f"{self.identity} could not renew {self.key} within {self.duration * DEADLINE:g} s")
                await asyncio.sleep(min(wait, left))
                if await self.extend():
                    break
                wait = self.renew * RETRY * jitter.between(0.5, 1.0)
        raise Lost(f"{self.identity} does not hold {self.key}")

    async def extend(self) -> bool:
        """Renew once; false when it did not work but may yet, `Lost` when the lease is not ours any more."""
        left = self.renewed + self.duration * DEADLINE - now()
        if left <= 0 or self.lease is None:
            return False
        try:
            async with asyncio.timeout(min(self.renew, left)):
                if await self.write(self.lease):
                    return True
                try:
                    found = await self.client.get(LEASE, self.key)
                except Missing:
                    # Somebody deleted it, and nobody has taken it yet.
                    return await self.write(self.blank(self.lease["spec"]))
        except (ApiError, TimeoutError):
            return False
        spec = found.get("spec") or {}
        if not (self.wrote(spec) or self.touched(spec)):
            self.lease = None
            holder = spec.get("holderIdentity")
            taken = holder not in {None, "", self.identity}
            raise Lost(f"{holder or 'nobody'} holds {self.key} now, not {self.identity}", taken=taken)
        self.lease = found
        return False

    def wrote(self, spec: dict[str, Any]) -> bool:
        """Say whether we wrote this, perhaps without having seen the answer; a namesake's renewals bear other times."""
        return spec.get("holderIdentity") == self.identity and spec.get("renewTime") in self.stamps

    def touched(self, spec: dict[str, Any]) -> bool:
        """Say whether this is still our reign, whatever somebody did to its times; a namesake's began at another."""
        mine = self.lease["spec"] if self.lease is not None else {}
        return all(spec.get(name) == mine.get(name) for name in ("holderIdentity", "acquireTime"))

    async def release(self) -> None:
        """Give the lease up so that another need not wait; never raises."""
        held, self.lease = self.lease, None
        if held is None:
            return
        stamp = moment()
        # What client-go writes: nobody holds it, and whoever counts by its duration is done in a second.
        spec = {
            **held["spec"],
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "renewTime": stamp,
            "acquireTime": stamp,
        }
        try:
            async with asyncio.timeout(RELEASE):
                await self.client.replace({**held, "spec": spec})
        except (ApiError, TimeoutError) as error:
            log.info("kube.lease lease=%s not released: %s", self.key, error or "no answer in time")


def another(spec: dict[str, Any], before: dict[str, Any] | None) -> str:
    """Return who holds a lease when that is somebody new; empty otherwise."""
    holder = str(spec.get("holderIdentity") or "")
    return holder if before is None or holder != before.get("holderIdentity") else ""


def claimed(spec: dict[str, Any], default: float) -> float:
    """Return for how many seconds a holder's record counts."""
    seconds = spec.get("leaseDurationSeconds")
    return min(float(seconds), LONGEST) if isinstance(seconds, int) and seconds > 0 else default


def now() -> float:
    """Return seconds of a clock that nobody sets, and that goes on while the machine sleeps where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def moment() -> str:
    """Return the time as the API writes it (RFC 3339, microseconds)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
