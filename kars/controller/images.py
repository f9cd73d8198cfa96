"""Signed images: verify, pin by digest, and publish what was verified for the policy that the cluster enforces.

The ValidatingAdmissionPolicy `kars-signed-images` admits pods of sandboxes only when every image is pinned to a digest
that stands in the ConfigMap `kars-verified-images`, so that an image that nobody verified cannot start, whoever asks.

The list has a key `sha256-<hex>` for each digest; its value is who signed, and on further lines the tags that led
there. It says under which SignerPolicy it was made: under another one it begins anew, and every sandbox brings its
images back. A tag that leads nowhere any more, or to what nobody signed, stays at the digest that it led to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from hashlib import sha256

import msgspec

from kars.artifacts import references
from kars.artifacts.refused import Refused
from kars.artifacts.signers import SignerPolicy
from kars.controller.cluster import Cluster
from kars.controller.reconcile import Temporary
from kars.desired import match, names
from kars.desired.conditions import say
from kars.desired.plan import stamp
from kars.kube import types
from kars.kube.types import Key, Object
from kars.model.common import Condition
from kars.policy.compiled.outcome import config_map

VERIFIED = "kars-verified-images"
SIGNERS = "kars.azure.com/signer-policy"
IMAGES_VERIFIED = "ImagesVerified"
NOT_VERIFIED = "ImageNotVerified"

# What a ConfigMap holds is 1 MiB; an entry takes some 250 bytes, so this is about 3500 digests.
MOST_BYTES = 900_000
# Of an entry: characters of who signed, tags that are remembered.
WHO, TAGS = 160, 8
# How often a pin begins anew because who may sign changed meanwhile.
ATTEMPTS = 3
# Seconds until an image that is not verified is looked at again: at first soon, then ever more rarely.
FIRST_LOOK, LAST_LOOK, GROWTH, MOST_FAILURES = 15.0, 300.0, 1.6, 10


FULL = Refused("Transient", f"sandboxes use more images than the ConfigMap {VERIFIED} holds")


class Entry(msgspec.Struct, frozen=True):
    """A digest that may run: who signed it, and the tags that led to it."""

    who: str
    tags: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it as the ConfigMap has it."""
        return "\n".join((self.who, *self.tags))


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one image; `refused` with a `reference` is about what the tag leads to now."""

    image: str
    reference: str = ""
    who: str = ""
    refused: Refused | None = None


class Pinned(msgspec.Struct, frozen=True, kw_only=True):
    """What may run, and what is told of it."""

    images: dict[str, str]  # what is named to what runs
    conditions: tuple[Condition, ...]
    # Which image may not run, and why; empty when all may. `final`: waiting will not help.
    message: str = ""
    final: bool = True
    after: float | None = None


class Images:
    """What was verified under the SignerPolicy of now, and which sandbox uses it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.under: str | None = None
        self.entries: dict[str, Entry] = {}
        self.tags: dict[str, str] = {}  # a tag to the reference that it led to, whoever may sign
        self.used: dict[Key, frozenset[str]] = {}
        self.failures: dict[Key, int] = {}
        self.version = 0
        self.written: tuple[int, str] = (-1, "")  # version and stamp of what was published

    async def pin(self, sandbox: Key, wanted: Iterable[Object], cluster: Cluster, *, standing: Object | None) -> Pinned:
        """Verify every image of a plan, publish those that hold, and say which do not.

        `standing` is the Deployment that runs now: what it runs may go on starting as long as its signer counts.
        """
        named = images(wanted)
        running = images([standing] if standing else ())
        found = {one.image: one for one in await self.check_all(named | running, cluster)}
        if not self.take(sandbox, [one for one in found.values() if one.reference]):
            found = {image: Outcome(image=image, refused=FULL) for image in found}
        await self.publish(cluster)
        return self.told(sandbox, [found[image] for image in sorted(named)])

    def told(self, sandbox: Key, found: list[Outcome]) -> Pinned:
        """Say how it stands."""
        pinned = {one.image: one.reference for one in found if one.reference}
        refused = [one for one in found if one.refused and not one.reference]
        stale = [one for one in found if one.refused and one.reference]
        count = self.failures[sandbox] = min(self.failures.get(sandbox, -1) + 1, MOST_FAILURES)
        after = min(LAST_LOOK, FIRST_LOOK * GROWTH**count)
        if refused:
            message = "; ".join(described(one) for one in refused)
            reason = refused[0].refused.reason if refused[0].refused else ""
            final = any(one.refused is not None and not one.refused.retryable for one in refused)
            told = say(IMAGES_VERIFIED, "False", reason, message)
            return Pinned(images=pinned, conditions=(told,), message=message, final=final, after=after)
        if stale:
            message = "; ".join(f"{described(one)}; {one.reference} stays" for one in stale)
            reason = stale[0].refused.reason if stale[0].refused else ""
            return Pinned(images=pinned, conditions=(say(IMAGES_VERIFIED, "False", reason, message),), after=after)
        self.failures.pop(sandbox, None)
        signers = ", ".join(sorted({one.who for one in found}))
        words = f"{len(found)} images, signed by {signers}"
        return Pinned(images=pinned, conditions=(say(IMAGES_VERIFIED, "True", "Verified", words),))

    def forget(self, sandbox: Key) -> None:
        """Forget a sandbox that goes; what it ran stays listed until there is no room."""
        self.used.pop(sandbox, None)
        self.failures.pop(sandbox, None)

    # --- verifying

    async def check_all(self, wanted: Iterable[str], cluster: Cluster) -> list[Outcome]:
        """Verify images under one SignerPolicy; begin anew when it changed meanwhile, so that a revocation counts."""
        wanted = sorted(wanted)
        for _ in range(ATTEMPTS):
            signers, under = who_may_sign(cluster)
            self.turn(under, cluster)
            if isinstance(signers, Refused):
                return [Outcome(image=image, refused=signers) for image in wanted]
            found = await asyncio.gather(*(self.check(image, signers, cluster) for image in wanted))
            if who_may_sign(cluster)[1] == under:
                return found
        raise Temporary("who may sign changes all the time")

    async def check(self, image: str, signers: SignerPolicy, cluster: Cluster) -> Outcome:
        """Verify one image, or what its tag led to when that was last good."""
        try:
            reference, who = await cluster.artifacts.check_image(image, signers)
        except Refused as refused:
            reference, who = await self.last_good(image, signers, cluster)
            return Outcome(image=image, reference=reference, who=who, refused=refused)
        return Outcome(image=image, reference=reference, who=who)

    async def last_good(self, image: str, signers: SignerPolicy, cluster: Cluster) -> tuple[str, str]:
        """Return the reference that an image was last pinned to and who signed it, if that counts still; else empty."""
        reference = by_digest(image) or self.tags.get(image, "")
        if not reference or signers.empty:
            return "", ""
        entry = self.entries.get(key_of(reference))
        if entry is not None:
            return reference, entry.who
        if reference == by_digest(image):
            return "", ""
        try:
            return await cluster.artifacts.check_image(reference, signers)
        except Refused:
            return "", ""

    # --- the list

    def turn(self, under: str, cluster: Cluster) -> None:
        """Begin a new list when another SignerPolicy counts; after a start, go on with what was published under it."""
        if under != self.under:
            stored, by = published(cluster)
            self.entries = stored if self.under is None and by == under else {}
            for digest, entry in stored.items():
                for tag in entry.tags:
                    self.tags.setdefault(tag, rebuilt(tag, digest))
            self.under = under
            self.version += 1

    def take(self, sandbox: Key, found: Iterable[Outcome]) -> bool:
        """Add what was verified; false when there is no room for it."""
        used, version = set(), self.version
        for one in found:
            digest = key_of(one.reference)
            used.add(digest)
            if "@" not in one.image:
                self.lead(one.image, one.reference)
            before = self.entries.get(digest)
            tags = tags_of(one.image, before)
            if before is None or before.tags != tags:
                self.entries[digest] = Entry(one.who[:WHO] if before is None else before.who, tags)
                self.version += 1
        self.used[sandbox] = frozenset(used)
        if version == self.version or size(self.entries) <= MOST_BYTES:
            return True
        everything = frozenset().union(*self.used.values())
        self.entries = {digest: entry for digest, entry in self.entries.items() if digest in everything}
        if size(self.entries) <= MOST_BYTES:
            return True
        others = frozenset().union(*(digests for key, digests in self.used.items() if key != sandbox))
        self.entries = {digest: entry for digest, entry in self.entries.items() if digest in others}
        del self.used[sandbox]
        return False

    def lead(self, tag: str, reference: str) -> None:
        """Note where a tag leads, and that it leads nowhere else."""
        before = self.tags.get(tag)
        self.tags[tag] = reference
        if before is not None and before != reference and (entry := self.entries.get(key_of(before))):
            self.entries[key_of(before)] = Entry(entry.who, tuple(one for one in entry.tags if one != tag))
            self.version += 1

    async def publish(self, cluster: Cluster) -> None:
        """Write the list when it is not what stands. Those who come meanwhile wait, and find their part written."""
        async with self.lock:
            version, written = self.written
            if version == self.version and cluster.children.confirmed(types.CONFIG_MAP, place(cluster), written):
                return
            version = self.version
            value = stamp(
                config_map(
                    VERIFIED,
                    namespace=cluster.settings.namespace,
                    labels={"artifact": "verified-images"},
                    data={digest: entry.text().encode() for digest, entry in sorted(self.entries.items())},
                    annotations={"signer-policy": self.under or ""},
                )
            )
            await cluster.children.bring([value], manager=names.MANAGER)
            await self.purge(value["data"], cluster)
            self.written = (version, match.stamp_of(value))

    async def purge(self, ours: Mapping[str, str], cluster: Cluster) -> None:
        """Take off the list what somebody else put there: an apply leaves alone what others own."""
        foreign = published(cluster)[0].keys() - ours.keys()
        if foreign:
            patch = {"data": dict.fromkeys(sorted(foreign))}
            answer = await cluster.client.merge(types.CONFIG_MAP, place(cluster), patch)
            cluster.made["ConfigMap"].put(answer)

    def lost(self, cluster: Cluster) -> bool:
        """Whether somebody else changed or deleted the list."""
        version, written = self.written
        if version < 0 or self.lock.locked():
            return False
        key = place(cluster)
        if cluster.children.confirmed(types.CONFIG_MAP, key, written):
            return False
        found = cluster.children.find(types.CONFIG_MAP, key) or {}
        return (found.get("data") or {}) != {digest: entry.text() for digest, entry in self.entries.items()}


def images(wanted: Iterable[Object]) -> set[str]:
    """Return every image that the pods of a plan run or mount."""
    found = set()
    for one in wanted:
        spec = (one.get("spec") or {}).get("template", {}).get("spec", {}) if one["kind"] == "Deployment" else {}
        for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
            found.add(container["image"])
        found |= {volume["image"]["reference"] for volume in spec.get("volumes", ()) if "image" in volume}
    return found


def place(cluster: Cluster) -> Key:
    """Return where the list is."""
    return Key(cluster.settings.namespace, VERIFIED)


def published(cluster: Cluster) -> tuple[dict[str, Entry], str]:
    """Return the list as it stands, and under which SignerPolicy it was made."""
    found = cluster.children.find(types.CONFIG_MAP, place(cluster)) or {"metadata": {}}
    entries = {}
    for digest, text in (found.get("data") or {}).items():
        who, *tags = text.split("\n")
        entries[digest] = Entry(who[:WHO], tuple(tags[:TAGS]))
    return entries, (found["metadata"].get("annotations") or {}).get(SIGNERS, "")


def who_may_sign(cluster: Cluster) -> tuple[SignerPolicy | Refused, str]:
    """Return the SignerPolicy of now, or why there is none, and what tells it from others."""
    try:
        signers = cluster.signers()
    except Refused as refused:
        return refused, "nobody"
    return signers, judged_by(signers, cluster)


def judged_by(signers: SignerPolicy, cluster: Cluster) -> str:
    """Return a digest of everything that decides whether a signature counts: who may sign, and the root of trust."""
    root = sha256(cluster.artifacts.roots.source or b"").digest()
    return sha256(root + msgspec.json.encode(signers)).hexdigest()[:16]


def by_digest(image: str) -> str:
    """Return an image that is named by its digest as it is pinned; empty for others."""
    try:
        named = references.image(image)
    except Refused:
        return ""
    return f"{named.repository}@{named.digest}" if named.digest else ""


def rebuilt(tag: str, digest: str) -> str:
    """Return the reference that a tag led to."""
    try:
        return f"{references.image(tag).repository}@{digest.replace('-', ':', 1)}"
    except Refused:
        return ""


def key_of(reference: str) -> str:
    """Return the key of a pinned image: sha256-<hex>."""
    return reference.rpartition("@")[2].replace(":", "-", 1)


def tags_of(image: str, before: Entry | None) -> tuple[str, ...]:
    """Return the tags of an entry with this one among them, the last so many."""
    known = before.tags if before else ()
    return known if "@" in image or image in known else (*known, image)[-TAGS:]


def size(entries: Mapping[str, Entry]) -> int:
    """Return the bytes that a list takes."""
    return sum(len(digest) + len(entry.text().encode()) for digest, entry in entries.items())


def described(one: Outcome) -> str:
    """Say of an image why it is not verified."""
    return f"image {one.image}: {one.refused.told if one.refused else 'verified'}"
