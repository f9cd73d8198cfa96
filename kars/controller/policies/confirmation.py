"""Which sandboxes are known to have a policy in force, so that only the others are asked.

A thousand sandboxes that become ready one after the other wake a policy a thousand times: each time only those are
asked that have not confirmed yet. A pod that comes or goes makes its sandbox one of them again, and everybody is asked
anew from time to time, because a router can also lose what it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta

import msgspec

from kars.controller.cluster import Cluster
from kars.controller.echo import Heard
from kars.desired.conditions import Answer
from kars.kube.types import Key

# How long a confirmation counts without being asked for again.
FRESH = timedelta(minutes=5)
# Seconds until somebody who has not confirmed is asked again: half of how long it has been waiting, within these. The
# kubelet takes up to a minute and a half to refresh a mount, and tells nobody.
SOONEST, LATEST = 5.0, 300.0


# Sandboxes that are asked together, and how long all the asking may take: who has not been asked by then is next time.
BATCH, DEADLINE = 128, 20.0


class Progress(msgspec.Struct):
    """What is known of one policy's way into force."""

    digest: str
    since: datetime  # when the last sandbox confirmed, or the digest became what it is
    asked: datetime  # when everybody was asked
    confirmed: set[Key]
    turn: int = 0  # whose turn it is to be asked first


class Poll(msgspec.Struct, frozen=True):
    """What the sandboxes say, those first that do not have the digest in force."""

    answers: tuple[Answer, ...]
    matched: int
    # What routers report as the last error of the kind.
    errors: tuple[str, ...]
    # Whether all who have not confirmed know nothing of the kind: then asking the same pods again is no use.
    unreported: bool
    # How long nobody has confirmed.
    idle: timedelta

    @property
    def after(self) -> float:
        """Seconds until asking again makes sense."""
        return LATEST if self.unreported else min(max(SOONEST, self.idle.total_seconds() / 2), LATEST)


class Confirmations:
    """What the sandboxes of every policy of one kind confirmed."""

    def __init__(self) -> None:
        self.progress: dict[Key, Progress] = {}

    def doubt(self, policy: Key, sandbox: Key) -> None:
        """Ask a sandbox again, because its pods changed."""
        if policy in self.progress:
            self.progress[policy].confirmed.discard(sandbox)

    def forget(self, policy: Key) -> None:
        """Drop what is known of a policy."""
        self.progress.pop(policy, None)

    async def poll(self, policy: Key, sandboxes: AbstractSet[Key], cluster: Cluster, *, kind: str, digest: str) -> Poll:
        """Ask the sandboxes that have not confirmed the digest yet, all of them at once."""
        now = cluster.now()
        known = self.progress.get(policy)
        if known is None or known.digest != digest:
            known = self.progress[policy] = Progress(digest, now, now, set())
        if now - known.asked >= FRESH:
            known.confirmed, known.asked = set(), now
        known.confirmed &= sandboxes
        heard = await self.ask(known, sandboxes - known.confirmed, cluster)
        found = {sandbox for sandbox, one in heard.items() if one.digest(kind) == digest}
        if found:
            known.since = now
            known.confirmed |= found
        others = [heard[sandbox] for sandbox in sorted(heard) if sandbox not in found]
        said = [one.last_error(kind) for one in others]
        confirmed = [Answer(sandbox.name, digest) for sandbox in known.confirmed]
        return Poll(
            answers=(*(answer(one, kind) for one in others), *confirmed),
            matched=len(confirmed),
            errors=tuple(error for error in said if error),
            unreported=bool(others) and all(unreported(one, kind) for one in others),
            idle=now - known.since,
        )

    async def ask(self, known: Progress, sandboxes: AbstractSet[Key], cluster: Cluster) -> dict[Key, Heard]:
        """Ask sandboxes by batches as long as there is time, beginning where it ran out the last time."""
        order = sorted(sandboxes)
        turn = known.turn % len(order) if order else 0
        order = order[turn:] + order[:turn]
        until = asyncio.get_running_loop().time() + DEADLINE
        heard: dict[Key, Heard] = {}
        for first in range(0, len(order), BATCH):
            if asyncio.get_running_loop().time() >= until:
                break
            heard |= await cluster.echo.ask(order[first : first + BATCH])
        known.turn = (turn + len(heard)) if len(heard) < len(order) else 0
        return {sandbox: heard.get(sandbox) or Heard(sandbox, error="not asked yet") for sandbox in order}


def unreported(heard: Heard, kind: str) -> bool:
    """Whether every pod answered, and none knows the kind."""
    asked = not heard.error and bool(heard.entries)
    return asked and not any(entry.kind == kind for pod in heard.entries for entry in pod)


def answer(heard: Heard, kind: str) -> Answer:
    """Say of one sandbox what it has in force, or why that is not known."""
    name = heard.sandbox.name
    if heard.error:
        return Answer(name, error=heard.error)
    if not heard.entries:
        return Answer(name, error="it has no pod that is ready")
    if unreported(heard, kind):
        return Answer(name, error=f"its router does not report {kind}")
    if error := heard.last_error(kind):
        return Answer(name, error=error)
    return Answer(name, heard.digest(kind))
