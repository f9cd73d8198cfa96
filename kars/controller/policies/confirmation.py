"""Which sandboxes are known to have a policy in force, so that only the others are asked.

A thousand sandboxes that become ready one after the other wake a policy a thousand times: each time only those are
asked of which something is new. All who have not confirmed are asked at a pace of their own, because the kubelet tells
nobody when it has refreshed a mount; and everybody is asked anew from time to time, because a router can also lose what
it had.
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
    confirmed: set[Key] = msgspec.field(default_factory=set)
    # Who has not confirmed: what they said when they were last asked.
    heard: dict[Key, Heard] = msgspec.field(default_factory=dict)
    # Whose answer may be another by now; and when all who have not confirmed are asked again.
    doubted: set[Key] = msgspec.field(default_factory=set)
    again: datetime | None = None
    # Whether the time ran out before all of them were asked.
    behind: bool = False


class Poll(msgspec.Struct, frozen=True):
    """What the sandboxes say, those first that do not have the digest in force."""

    answers: tuple[Answer, ...]
    matched: int
    # What routers report as the last error of the kind.
    errors: tuple[str, ...]
    # Seconds until asking again makes sense.
    after: float


class Confirmations:
    """What the sandboxes of every policy of one kind confirmed."""

    def __init__(self) -> None:
        self.progress: dict[Key, Progress] = {}

    def hint(self, policy: Key, sandbox: Key) -> None:
        """Ask a sandbox soon, unless it has confirmed."""
        if policy in self.progress:
            self.progress[policy].doubted.add(sandbox)

    def doubt(self, policy: Key, sandbox: Key) -> None:
        """Ask a sandbox again, because its pods or their mounts changed."""
        if policy in self.progress:
            self.progress[policy].confirmed.discard(sandbox)
            self.progress[policy].doubted.add(sandbox)

    def forget(self, policy: Key) -> None:
        """Drop what is known of a policy."""
        self.progress.pop(policy, None)

    async def poll(self, policy: Key, sandboxes: AbstractSet[Key], cluster: Cluster, *, kind: str, digest: str) -> Poll:
        """Ask the sandboxes that have not confirmed the digest yet and of which something is new, all of them at once.

        Who has nothing new is asked when their turn has come again; until then what they said last counts.
        """
        now = cluster.now()
        known = self.progress.get(policy)
        if known is None or known.digest != digest:
            known = self.progress[policy] = Progress(digest, now, now)
        if now - known.asked >= FRESH:
            known.confirmed, known.again, known.asked = set(), None, now
        known.confirmed &= sandboxes
        waiting = sandboxes - known.confirmed
        turn = known.again is None or (now >= known.again and not known.behind)
        if turn:
            known.doubted |= waiting
        known.heard = {sandbox: one for sandbox, one in known.heard.items() if sandbox in waiting}
        await self.ask(known, waiting, cluster)
        found = {sandbox for sandbox, one in known.heard.items() if one.digest(kind) == digest}
        if found:
            known.since = now
            known.confirmed |= found
        others = [known.heard.get(one) or Heard(one, error="not asked yet") for one in sorted(waiting - found)]
        said = [one.last_error(kind) for one in others]
        confirmed = [Answer(sandbox.name, digest) for sandbox in known.confirmed]
        pace = LATEST if others and all(unreported(one, kind) for one in others) else pace_of(now - known.since)
        if turn:
            known.again = now + timedelta(seconds=pace)
        return Poll(
            answers=(*(answer(one, kind) for one in others), *confirmed),
            matched=len(confirmed),
            errors=tuple(error for error in said if error),
            after=SOONEST if known.behind or known.again is None else max(SOONEST, (known.again - now).total_seconds()),
        )

    async def ask(self, known: Progress, waiting: AbstractSet[Key], cluster: Cluster) -> None:
        """Ask, by batches and as long as there is time, who has not been asked or may say something else by now."""
        order = sorted(one for one in waiting if one in known.doubted or one not in known.heard)
        known.doubted.clear()
        known.behind = False
        until = asyncio.get_running_loop().time() + DEADLINE
        for first in range(0, len(order), BATCH):
            known.behind = asyncio.get_running_loop().time() >= until
            if known.behind:
                known.doubted.update(order[first:])
                break
            known.heard |= await cluster.echo.ask(order[first : first + BATCH])
        # An answer to a question that was raised anew meanwhile may be that of a pod that is gone.
        for one in known.doubted:
            known.heard.pop(one, None)


def pace_of(idle: timedelta) -> float:
    """Return the seconds until asking again makes sense: half of how long nobody has confirmed, within bounds."""
    return min(max(SOONEST, idle.total_seconds() / 2), LATEST)


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
