"""Events of `events.k8s.io/v1`: what happened to an object, for `kubectl describe`; repeated ones become a series."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kars.kube.client import Client
from kars.kube.errors import ApiError, Busy, Missing
from kars.kube.lease import moment
from kars.kube.types import EVENT, Key, Object

log = logging.getLogger("kars.kube")

# What the API server takes, in bytes.
NOTE = 1024
NAME = 253
INSTANCE = 128
# Subjects that are remembered, to make a series of what is told again; beyond, the least recently told is forgotten.
SERIES = 1000
# Events that wait to be written; more are dropped and counted.
WAITING = 500
# Seconds between two writes about one series: its count is as old as that at most.
EVERY = 120.0
# Seconds after which the same thing is a new event, not the series of the old one (client-go has six minutes).
FORGET = 600.0
# Events written at once, and per second in the long run.
BURST = 50
RATE = 5.0
# Seconds before an event is tried again, and how often it is tried in all.
AGAIN = 2.0
ATTEMPTS = 3


class Subject(NamedTuple):
    """What is the same event when it is told again; the note is not part of it."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    reason: str
    action: str
    type: str


@dataclass
class Series:
    """An event that was told, and how often."""

    note: str
    version: str
    first: str
    last: str
    told: float
    count: int = 1
    key: Key | None = None  # once it is written
    written: float = 0.0
    sent: int = 0  # the count that the API server knows


class Recorder:
    """Writes events in the background: bounded, never in the way of who tells them.

    The same is never written twice within minutes; it is counted. `controller` is what reports; the object's kind is
    added to it (`kars-controller/ToolPolicy`) unless it bears a slash already. `dropped` and `written` count.
    """

    def __init__(self, client: Client, *, controller: str, instance: str) -> None:
        self.client = client
        self.controller = controller
        self.instance = cut(instance, INSTANCE) or controller
        self.told: OrderedDict[Subject, Series] = OrderedDict()
        self.waiting: OrderedDict[Subject, None] = OrderedDict()
        self.wake = asyncio.Event()
        self.tokens = float(BURST)
        self.filled = time.monotonic()
        self.dropped = self.written = 0

    def tell(
        self,
        about: Object,
        *,
        reason: str,
        action: str,
        note: str,
        type: Literal["Normal", "Warning"] = "Normal",  # noqa: A002 - the API's own name
    ) -> None:
        """Note an event about an object (apiVersion, kind, metadata); `note` is cut at 1024 bytes."""
        metadata = about["metadata"]
        namespace, uid = metadata.get("namespace") or "", metadata.get("uid") or ""
        subject = Subject(about["apiVersion"], about["kind"], namespace, metadata["name"], uid, reason, action, type)
        now, stamp = time.monotonic(), moment()
        series = self.told.get(subject)
        if series is not None and now - series.told < FORGET:
            series.count += 1
            series.last, series.told = stamp, now
            self.told.move_to_end(subject)
            return
        if len(self.waiting) >= WAITING:
            self.dropped += 1
            return
        version = metadata.get("resourceVersion") or ""
        self.told[subject] = Series(note=cut(note, NOTE), version=version, first=stamp, last=stamp, told=now)
        self.told.move_to_end(subject)
        while len(self.told) > SERIES:
            gone, _ = self.told.popitem(last=False)
            self.waiting.pop(gone, None)
        self.waiting[subject] = None
        self.wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            self.wake.clear()
            while self.waiting:
                subject, _ = self.waiting.popitem(last=False)
                await self.write(subject)
            for subject in self.due():
                await self.write(subject)
            # Counts are due at some time or other; a look now and then finds them.
            try:
                async with asyncio.timeout(EVERY / 8):
                    await self.wake.wait()
            except TimeoutError:
                continue

    def due(self) -> list[Subject]:
        """Return the series whose count should be written, and forget those that ended."""
        now = time.monotonic()
        for subject in [one for one, series in self.told.items() if now - series.told >= FORGET]:
            if self.told[subject].count == self.told[subject].sent:
                del self.told[subject]
        return [
            subject
            for subject, series in self.told.items()
            if series.key is not None and series.count > series.sent and now - series.written >= EVERY
        ]

    async def write(self, subject: Subject) -> None:
        """Write one event or its count; what does not work is tried a few times and then dropped."""
        series = self.told.get(subject)
        if series is None:
            return
        for attempt in range(ATTEMPTS):
            await self.pace()
            try:
                await self.send(subject, series)
            except Busy as error:
                await asyncio.sleep(min(max(AGAIN * (attempt + 1), error.after or 0.0), 30.0))
            except ApiError as error:
                log.info("kube.event object=%s/%s reason=%s dropped: %s", *subject[2:4], subject.reason, error)
                break
            else:
                self.written += 1
                return
        self.dropped += 1
        series.sent, series.written = series.count, time.monotonic()

    async def send(self, subject: Subject, series: Series) -> None:
        """Create the event, or patch the count of the one that stands."""
        count = series.count
        if series.key is not None:
            try:
                last = {"count": count, "lastObservedTime": series.last}
                await self.client.merge(EVENT, series.key, {"series": last})
            except Missing:
                series.key = None  # events live for an hour; begin anew
                series.first = series.last
        if series.key is None:
            made = self.event(subject, series)
            await self.client.create(made)
            series.key = Key(made["metadata"]["namespace"], made["metadata"]["name"])
            count = 1 if "series" not in made else count
        series.sent, series.written = count, time.monotonic()

    def event(self, subject: Subject, series: Series) -> Object:
        """Make the event; it stands in its object's namespace, or in `default` for one that has none."""
        suffix = f".{secrets.token_hex(8)}"
        about = {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
            "resourceVersion": series.version,
        }
        made: Object = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "namespace": subject.namespace or "default",
                "name": subject.name[: NAME - len(suffix)].rstrip(".-") + suffix,
            },
            "eventTime": series.first,
            "reportingController": self.controller if "/" in self.controller else f"{self.controller}/{subject.kind}",
            "reportingInstance": self.instance,
            "reason": subject.reason,
            "action": subject.action,
            "type": subject.type,
            "regarding": {name: value for name, value in about.items() if value},
            "note": series.note,
        }
        if series.count > 1:
            made["series"] = {"count": series.count, "lastObservedTime": series.last}
        return made

    async def pace(self) -> None:
        """Wait until another write is in the budget."""
        while True:
            now = time.monotonic()
            self.tokens = min(BURST, self.tokens + (now - self.filled) * RATE)
            self.filled = now
            if self.tokens >= 1:
                self.tokens -= 1
                return
            await asyncio.sleep((1 - self.tokens) / RATE)


def cut(text: str, size: int) -> str:
    """Cut a text to so many bytes of UTF-8, between characters."""
    return text if len(text) * 4 <= size else text.encode()[:size].decode(errors="ignore")
