"""Which destinations are in force for a sandbox: the inline list, or the signed artifact, or the last good one."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kars.artifacts import held
from kars.artifacts.contents import EGRESS
from kars.artifacts.fetch import Refused, Verified
from kars.artifacts.held import Owner
from kars.artifacts.signers import SignerPolicy
from kars.controller.cluster import Cluster
from kars.desired import names
from kars.desired.allowlist import Failed, Resolved, Signed, resolve
from kars.desired.plan import stamp
from kars.kube import types
from kars.kube.types import Key
from kars.model.common import Condition
from kars.model.sandbox import Endpoint, KarsSandbox
from kars.policy.compiled import egress

# Seconds until an artifact that could not be fetched is tried again.
AGAIN = 30.0


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force, and what is told of it."""

    endpoints: tuple[Endpoint, ...]
    document: bytes  # allowlist.json
    conditions: tuple[Condition, ...]
    degraded: str = ""
    message: str = ""
    after: float | None = None


async def settle(sandbox: KarsSandbox, cluster: Cluster) -> Settled:
    """Resolve the allowlist; never raises for what an artifact or a registry does."""
    policy = sandbox.spec.network_policy
    found: Signed | Failed | None = None
    last_good: tuple[Endpoint, ...] | None = None
    if policy is not None and policy.allowlist_ref is not None:
        found, last_good = await fetch(sandbox, cluster)
    resolved = resolve(
        policy,
        require_signed=cluster.settings.platform.require_signed_allowlist,
        fetched=found,
        last_good=last_good,
        before=sandbox.status.conditions if sandbox.status else (),
    )
    return described(resolved, again=isinstance(found, Failed))


def described(resolved: Resolved, *, again: bool) -> Settled:
    """Add the document that the router reads, which is there (and empty) also when nothing is allowed."""
    return Settled(
        endpoints=resolved.endpoints,
        document=egress.allowlist(resolved.endpoints),
        conditions=resolved.conditions,
        degraded=resolved.degraded,
        message=resolved.message,
        after=AGAIN if again else None,
    )


async def fetch(sandbox: KarsSandbox, cluster: Cluster) -> tuple[Signed | Failed, tuple[Endpoint, ...] | None]:
    """Return what became of the artifact, and where it is not used, the last good list when that still verifies."""
    owner = owner_of(sandbox)
    data = record(owner, cluster)
    reference = sandbox.spec.network_policy.allowlist_ref if sandbox.spec.network_policy else None
    assert reference is not None  # noqa: S101 - the caller looked
    try:
        signers = cluster.signers()
    except Refused as refused:
        return Failed(refused.reason, str(refused)), None
    try:
        verified = await cluster.artifacts.fetch(reference, EGRESS, signers)
        highest = held.advance(held.highest(data), verified)
    except Refused as refused:
        return Failed(refused.reason, str(refused)), await restore(owner, data, signers, cluster)
    await keep(owner, verified, highest, cluster)
    content = verified.content
    return Signed(endpoints=content.endpoints, digest=verified.digest, generation=content.generation), None


async def restore(
    owner: Owner, data: Mapping[str, str], signers: SignerPolicy, cluster: Cluster
) -> tuple[Endpoint, ...] | None:
    """Return the last good list, verified anew under the signers of now."""
    try:
        verified = await cluster.artifacts.restore(owner, data, EGRESS, signers)
    except Refused:
        return None
    endpoints: tuple[Endpoint, ...] = verified.content.endpoints
    return endpoints


async def keep(owner: Owner, verified: Verified, highest: int, cluster: Cluster) -> None:
    """Write the record, where it is not that already."""
    value = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": held.name(owner),
            "namespace": cluster.settings.namespace,
            "labels": held.labels(owner),
        },
        "data": held.pack(owner, verified, highest),
    }
    await cluster.children.bring([stamp(value)], manager=names.MANAGER)


def record(owner: Owner, cluster: Cluster) -> Mapping[str, str]:
    """Return the record of a resource as it stands; empty when there is none."""
    found = cluster.children.find(types.CONFIG_MAP, Key(cluster.settings.namespace, held.name(owner)))
    return (found or {}).get("data") or {}


def owner_of(sandbox: KarsSandbox) -> Owner:
    """Name a sandbox as the owner of a record."""
    return Owner(type(sandbox).__name__, sandbox.metadata.namespace, sandbox.metadata.name)
