"""From a reference to verified content."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, TypeVar

import msgspec

from kars.artifacts import held, references, signatures
from kars.artifacts.azure import Azure
from kars.artifacts.certificates import Roots
from kars.artifacts.contents import CONTENT_BYTES
from kars.artifacts.evidence import Evidence, Verified, examine, layers_of
from kars.artifacts.held import Owner
from kars.artifacts.references import Repository
from kars.artifacts.refused import Refused
from kars.artifacts.registry import Registry, Wallet, manifest_of
from kars.artifacts.signatures import (
    BUNDLE,
    SIGNATURE_BYTES,
    SIGNATURES,
    SIMPLE,
    SIMPLE_ARTIFACT,
    Signature,
    Signed,
    Target,
)
from kars.artifacts.signers import NOBODY, SignerPolicy
from kars.model.common import OciArtifactRef

__all__ = ["Artifacts", "Refused", "Verified"]

# How long a verification stands. The key has the SignerPolicy in it, so a change of it has effect at once; what is
# asked again after this is the registry.
CACHE_SECONDS = 3600
# Artifacts and images in force at once, and how much of the controller's memory (512 MiB) they may take.
CACHE_ENTRIES = 1024
CACHE_BYTES = 64 << 20
# A tag is looked up again after this; pods that start in between get what it was.
TAG_SECONDS = 60
# How long a caller waits for a fetch, which goes on without it: what is slow must not hold those who wait for more than
# the usual artifact takes.
PATIENCE = 10.0
# How long one fetch may take with all its requests, and how many may be under way or wait for their turn.
LONGEST_FETCH = 90.0
MOST_FLIGHTS = 512
# Fetches at once, so that a change of leader does not ask a registry for everything in one moment.
FETCHES = 8

Found = TypeVar("Found")


class Seen(msgspec.Struct, frozen=True):
    """What an image's signatures are verified from."""

    target: Target
    signatures: tuple[Signature, ...]


class Artifacts:
    """Fetches and verifies; what was verified under a SignerPolicy is remembered for that very policy only."""

    def __init__(
        self,
        *,
        trusted_root: bytes | None = None,
        insecure_hosts: frozenset[str] = frozenset(),
        credentials: Wallet | None = None,
        azure: Azure | None = None,
    ) -> None:
        self.insecure_hosts = insecure_hosts
        self.roots = Roots(trusted_root)
        self.registry = Registry(insecure_hosts=insecure_hosts, credentials=credentials, azure=azure)
        self.cache: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self.bytes = 0
        self.flights: dict[Hashable, asyncio.Task[Any]] = {}
        self.slots = asyncio.Semaphore(FETCHES)

    async def fetch(self, reference: OciArtifactRef, media_type: str, signers: SignerPolicy) -> Verified:
        """Return verified content; `Refused` otherwise."""
        place, digest = references.artifact(reference, media_type)
        present(signers)
        return await self.once(
            ("artifact", place, digest, media_type, signers),
            lambda: self.fetch_now(place, digest, media_type, signers),
            CACHE_SECONDS,
        )

    async def fetch_now(self, place: Repository, digest: str, media_type: str, signers: SignerPolicy) -> Verified:
        """Fetch and verify, whatever is remembered."""
        manifest = await self.registry.manifest(place, digest)
        layers = layers_of(manifest_of(manifest.data), media_type, f"{place}@{digest}")
        bodies = [await self.registry.blob(place, layer.digest, CONTENT_BYTES) for layer in layers]
        found = await self.signatures(place, digest)
        evidence = Evidence(place, digest, manifest.data, tuple(bodies), tuple(found))
        return await asyncio.to_thread(examine, evidence, media_type, signers, self.roots)

    async def check_image(self, image: str, signers: SignerPolicy) -> tuple[str, str]:
        """Return the image pinned by digest, and who signed it; `Refused` when no signature matches.

        The digest is what the tag names: an index where the image has one, so every platform's manifest is covered.
        """
        named = references.image(image)
        present(signers)
        place = named.repository
        digest = named.digest or await self.once(
            ("tag", place, named.tag), lambda: self.resolve(place, named.tag), TAG_SECONDS
        )
        signed: Signed = await self.once(
            ("image", place, digest, signers), lambda: self.check_now(place, digest, signers), CACHE_SECONDS
        )
        return f"{place}@{digest}", signed.identity

    async def check_now(self, place: Repository, digest: str, signers: SignerPolicy) -> Signed:
        """Verify an image's signatures, those that were seen within the hour first.

        So a change of who may sign needs no registry where nothing changes for an image, and a signer who is revoked
        while the registry is down is told as such.
        """
        seen, verdict = self.recall(("seen", place, digest)), None
        if isinstance(seen, Seen):
            try:
                return await self.verify_image(seen, signers)
            except Refused as refused:
                verdict = refused
        try:
            manifest = await self.registry.manifest(place, digest)
            seen = Seen(Target(manifest.data, digest, str(place)), tuple(await self.signatures(place, digest)))
        except Refused as refused:
            raise verdict if verdict is not None and refused.retryable else refused from None
        signed = await self.verify_image(seen, signers)
        self.remember(("seen", place, digest), seen, asyncio.get_running_loop().time() + CACHE_SECONDS)
        return signed

    async def verify_image(self, seen: Seen, signers: SignerPolicy) -> Signed:
        """Verify an image's signatures."""
        return await asyncio.to_thread(
            signatures.verify, seen.target, seen.signatures, signers=signers, roots=self.roots
        )

    async def resolve(self, place: Repository, tag: str) -> str:
        """Return the digest that a tag names now."""
        return (await self.registry.manifest(place, tag)).digest

    async def restore(self, owner: Owner, data: Mapping[str, str], media_type: str, signers: SignerPolicy) -> Verified:
        """Return what a last-good record holds, verified anew (`held.restore`)."""
        return await asyncio.to_thread(held.restore, owner, data, media_type, signers=signers, roots=self.roots)

    async def close(self) -> None:
        """Close every connection."""
        flights = list(self.flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self.registry.close()

    async def signatures(self, place: Repository, digest: str) -> list[Signature]:
        """Return the signatures that the registry holds over a manifest, those of bundles first."""
        found: list[Signature] = []
        for referrer in await self.registry.referrers(place, digest):
            if referrer.artifact_type in {BUNDLE, SIMPLE_ARTIFACT} and len(found) < SIGNATURES:
                found.extend(await self.layers(place, referrer.digest, digest))
        found.extend(await self.layers(place, f"{digest.replace(':', '-')}.sig", ""))
        return found[:SIGNATURES]

    async def layers(self, place: Repository, reference: str, subject: str) -> list[Signature]:
        """Return the signatures of one manifest; none when it is not there, or is about another subject."""
        try:
            manifest = manifest_of((await self.registry.manifest(place, reference)).data)
        except Refused as refused:
            return passed_over(refused)
        if subject and (manifest.subject is None or manifest.subject.digest != subject):
            return []
        found = []
        for layer in manifest.layers[:SIGNATURES]:
            if layer.media_type not in {BUNDLE, SIMPLE}:
                continue
            try:
                body = await self.registry.blob(place, layer.digest, SIGNATURE_BYTES)
            except Refused as refused:
                found.extend(passed_over(refused))
                continue
            if layer.media_type == BUNDLE:
                found.append(Signature("bundle", body))
            else:
                annotations = layer.annotations or {}
                kept = {name: annotations[name] for name in signatures.KEPT_ANNOTATIONS if name in annotations}
                found.append(Signature("simple", body, kept))
        return found

    async def once(self, key: Hashable, work: Callable[[], Awaitable[Found]], seconds: float) -> Found:
        """Return what is remembered, or the outcome of the one piece of work that is under way for it."""
        found: Found | None = self.recall(key)
        if found is not None:
            return found
        flight = self.flights.get(key)
        if flight is None:
            if len(self.flights) >= MOST_FLIGHTS:
                raise Refused("Transient", f"{MOST_FLIGHTS} artifacts are being fetched; this one has to wait")
            flight = self.flights[key] = asyncio.create_task(self.work(key, work, seconds))
            flight.add_done_callback(lambda done: self.landed(key, done))
        # A caller that is cancelled, or goes, leaves the others their work.
        done, _ = await asyncio.wait((flight,), timeout=PATIENCE)
        if not done:
            raise Refused("Transient", "it is still being fetched")
        outcome: Found = flight.result()
        return outcome

    def recall(self, key: Hashable) -> Any:  # noqa: ANN401 - whatever was remembered
        """Return what is remembered; None when that is nothing, or was too long ago."""
        entry = self.cache.get(key)
        if entry is None or entry[0] <= asyncio.get_running_loop().time():
            return None
        self.cache.move_to_end(key)
        return entry[1]

    async def work(self, key: Hashable, work: Callable[[], Awaitable[Found]], seconds: float) -> Found:
        """Do it, and remember it when it went well."""
        async with self.slots:
            try:
                async with asyncio.timeout(LONGEST_FETCH):
                    found = await work()
            except TimeoutError:
                raise Refused("Transient", f"fetching it took longer than {LONGEST_FETCH:g} s") from None
        self.remember(key, found, asyncio.get_running_loop().time() + seconds)
        return found

    def remember(self, key: Hashable, found: object, until: float) -> None:
        """Remember an outcome; what was asked for longest ago goes when there is no room."""
        self.forget(key)
        self.cache[key] = (until, found)
        self.bytes += weight(found)
        while len(self.cache) > CACHE_ENTRIES or self.bytes > CACHE_BYTES:
            self.forget(next(iter(self.cache)))

    def forget(self, key: Hashable) -> None:
        """Forget an outcome."""
        if key in self.cache:
            self.bytes -= weight(self.cache.pop(key)[1])

    def landed(self, key: Hashable, flight: asyncio.Task[Any]) -> None:
        """Forget a flight; its failure was the callers' to see."""
        self.flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()


def weight(found: object) -> int:
    """Return about how many bytes an outcome takes; its content, decoded, is counted as much again as its bytes."""
    if isinstance(found, Seen):
        return 1024 + len(found.target.manifest) + sum(weight_of(one) for one in found.signatures)
    if not isinstance(found, Verified):
        return 1024
    manifest = len(found.evidence.manifest) if found.evidence else 0
    return 1024 + manifest + 4 * len(found.body)


def weight_of(signature: Signature) -> int:
    """Return about how many bytes a signature takes."""
    return 512 + len(signature.body) + sum(len(text) for text in signature.annotations.values())


def present(signers: SignerPolicy) -> None:
    """Refuse before anything is fetched when nobody may sign."""
    if signers.empty:
        raise Refused("SignerPolicyMissing", NOBODY, hint="docs/signing.md shows one")


def passed_over(refused: Refused) -> list[Signature]:
    """Pass a signature over that cannot be read, unless asking again may help."""
    if refused.reason in {"Transient", "Unauthorized"}:
        raise refused
    return []
