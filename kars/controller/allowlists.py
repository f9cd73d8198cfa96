"""Which destinations are in force for a sandbox: the inline list, or the signed artifact, or the last good one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from kars.artifacts import held
from kars.artifacts.contents import EGRESS
from kars.artifacts.held import Owner
from kars.artifacts.refused import Refused
from kars.artifacts.signers import SignerPolicy
from kars.controller.cluster import Cluster
from kars.desired import match, names
from kars.desired.allowlist import Failed, Resolved, Signed, resolve
from kars.desired.plan import stamp
from kars.kube import types
from kars.kube.types import Key
from kars.model.common import Condition
from kars.model.sandbox import AllowlistRef, Endpoint, KarsSandbox
from kars.policy.compiled import egress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.artifacts.fetch import Verified

# Seconds until an artifact that is not used is asked for again: at first soon, then ever more rarely. A change of the
# sandbox or of who may sign is looked at at once.
FIRST_LOOK, LAST_LOOK, GROWTH = 15.0, 300.0, 1.6
# Failures that are counted: the pause has reached its longest by then.
MOST_FAILURES = 10


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force, and what is told of it."""

    endpoints: tuple[Endpoint, ...]
    document: bytes  # allowlist.json
    conditions: tuple[Condition, ...]
    degraded: str = ""
    message: str = ""
    after: float | None = None


class Kept(msgspec.Struct, frozen=True):
    """What the last record of a resource was made of, and its stamp; spares making it again."""

    source: bytes  # a digest over artifact and signature
    highest: int
    stamp: str


class Allowlists:
    """Settles allowlists; what it remembers only spares work."""

    def __init__(self) -> None:
        self.kept: dict[Owner, Kept] = {}
        self.failures: dict[Owner, int] = {}

    async def settle(self, sandbox: KarsSandbox, cluster: Cluster) -> Settled:
        """Resolve the allowlist; never raises for what an artifact or a registry does."""
        policy = sandbox.spec.network_policy
        found: Signed | Failed | None = None
        last_good: tuple[Endpoint, ...] | None = None
        if policy is not None and policy.allowlist_ref is not None:
            found, last_good = await self.fetch(owner_of(sandbox), policy.allowlist_ref, cluster)
        resolved = resolve(
            policy,
            require_signed=cluster.settings.platform.require_signed_allowlist,
            fetched=found,
            last_good=last_good,
            before=sandbox.status.conditions if sandbox.status else (),
        )
        return described(resolved, after=self.pause(owner_of(sandbox), failed=isinstance(found, Failed)))

    def forget(self, sandbox: KarsSandbox) -> None:
        """Forget a sandbox that goes."""
        self.kept.pop(owner_of(sandbox), None)
        self.failures.pop(owner_of(sandbox), None)

    def pause(self, owner: Owner, *, failed: bool) -> float | None:
        """Return when to ask again after a failure; None when there was none."""
        if not failed:
            self.failures.pop(owner, None)
            return None
        count = self.failures[owner] = min(self.failures.get(owner, -1) + 1, MOST_FAILURES)
        return min(LAST_LOOK, FIRST_LOOK * GROWTH**count)

    async def fetch(
        self, owner: Owner, reference: AllowlistRef, cluster: Cluster
    ) -> tuple[Signed | Failed, tuple[Endpoint, ...] | None]:
        """Return what became of the artifact, and where it is not used, the last good list when that still verifies."""
        data = record(owner, cluster)
        try:
            signers = cluster.signers()
        except Refused as refused:
            return Failed(refused.reason, refused.told), None
        try:
            verified = await cluster.artifacts.fetch(reference, EGRESS, signers)
            highest = held.advance(held.highest(data), verified)
        except Refused as refused:
            last_good, fault = await restore(owner, data, signers, cluster)
            return told(refused, fault), last_good
        await self.keep(owner, verified, highest, cluster)
        content = verified.content
        return Signed(endpoints=content.endpoints, digest=verified.digest, generation=content.generation), None

    async def keep(self, owner: Owner, verified: Verified, highest: int, cluster: Cluster) -> None:
        """Write the record, where it is not that already."""
        place = place_of(owner, cluster)
        source = fingerprint(verified)
        kept = self.kept.get(owner)
        if (
            kept
            and (kept.source, kept.highest) == (source, highest)
            and cluster.children.confirmed(types.CONFIG_MAP, place, kept.stamp)
        ):
            return
        value = stamp(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": place.name, "namespace": place.namespace, "labels": held.labels(owner)},
                "data": held.pack(owner, verified, highest),
            }
        )
        await cluster.children.bring([value], manager=names.MANAGER)
        self.kept[owner] = Kept(source, highest, match.stamp_of(value))


def described(resolved: Resolved, *, after: float | None) -> Settled:
    """Add the document that the router reads, which is there (and empty) also when nothing is allowed."""
    return Settled(
        endpoints=resolved.endpoints,
        document=egress.allowlist(resolved.endpoints),
        conditions=resolved.conditions,
        degraded=resolved.degraded,
        message=resolved.message,
        after=after,
    )


def told(refused: Refused, fault: Refused | None) -> Failed:
    """Say why an artifact is not used; where nobody answers and the last good one does not count any more, say that.

    Else a signer who was revoked while a registry is down would leave a sandbox that may reach nothing and says that
    its allowlist is verified.
    """
    if refused.retryable and fault is not None:
        return Failed(fault.reason, f"{refused}; the last good artifact is not used: {fault.told}")
    return Failed(refused.reason, refused.told)


async def restore(
    owner: Owner, data: Mapping[str, str], signers: SignerPolicy, cluster: Cluster
) -> tuple[tuple[Endpoint, ...] | None, Refused | None]:
    """Return the last good list, verified anew under the signers of now; or why that does not count any more."""
    if held.RECORD not in data:
        return None, None
    try:
        verified = await cluster.artifacts.restore(owner, data, EGRESS, signers)
    except Refused as refused:
        return None, refused
    endpoints: tuple[Endpoint, ...] = verified.content.endpoints
    return endpoints, None


def record(owner: Owner, cluster: Cluster) -> Mapping[str, str]:
    """Return the record of a resource as it stands; empty when there is none."""
    found = cluster.children.find(types.CONFIG_MAP, place_of(owner, cluster))
    return (found or {}).get("data") or {}


def place_of(owner: Owner, cluster: Cluster) -> Key:
    """Return where the record of a resource is."""
    return Key(cluster.settings.namespace, held.name(owner))


def fingerprint(verified: Verified) -> bytes:
    """Return something that differs between two records' artifacts or signatures."""
    signatures = verified.evidence.signatures if verified.evidence else ()
    return hashlib.sha256(msgspec.msgpack.encode((verified.digest, signatures))).digest()


def owner_of(sandbox: KarsSandbox) -> Owner:
    """Name a sandbox as the owner of a record."""
    return Owner(type(sandbox).__name__, sandbox.metadata.namespace, sandbox.metadata.name)
