"""Signed images: verify, pin by digest, and publish what was verified for the policy that the cluster enforces.

The ValidatingAdmissionPolicy `kars-signed-images` admits pods of sandboxes only when every image is pinned to a digest
that stands in the ConfigMap `kars-verified-images`, so that an image that nobody verified cannot start, whoever asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from hashlib import sha256

import msgspec

from kars.artifacts.fetch import Refused
from kars.artifacts.signers import SignerPolicy
from kars.controller.cluster import Cluster
from kars.controller.gather import Blocked
from kars.desired import names
from kars.desired.plan import stamp
from kars.kube import types
from kars.kube.types import Key, Object
from kars.policy.compiled.outcome import config_map

VERIFIED = "kars-verified-images"
SIGNERS = "kars.azure.com/signer-policy"

# Digests that are published at most: a ConfigMap holds 1 MiB, an entry takes at most about 600 bytes of it.
MOST = 1500


class Images:
    """What was verified, under which SignerPolicy."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.verified: dict[str, str] = {}
        self.under = ""

    async def pin(self, wanted: Iterable[Object], cluster: Cluster) -> dict[str, str]:
        """Return every image of a plan pinned by digest, published as verified; `Blocked` when one is not signed."""
        signers = cluster.signers()
        pinned, found = {}, {}
        for image in sorted(images(wanted)):
            try:
                reference, identity = await cluster.artifacts.check_image(image, signers)
            except Refused as refusal:
                raise Blocked(refusal.reason, f"image {image}: {refusal}", final=not refusal.retryable) from refusal
            pinned[image] = reference
            found[reference.rpartition("@")[2].replace(":", "-")] = identity
        await self.publish(found, signers, cluster)
        return pinned

    async def publish(self, found: dict[str, str], signers: SignerPolicy, cluster: Cluster) -> None:
        """Add to the ConfigMap what is not in it; what another SignerPolicy let pass goes."""
        under = sha256(msgspec.json.encode(signers)).hexdigest()[:16]
        async with self.lock:
            if under != self.under:
                self.verified, self.under = self.stored(under, cluster), under
            new = {digest: who for digest, who in found.items() if digest not in self.verified}
            if len(self.verified) + len(new) > MOST:
                # Every sandbox is looked at again within minutes and brings what it uses back.
                self.verified = {}
                new = found
            self.verified.update(new)
            published = config_map(
                VERIFIED,
                namespace=cluster.settings.namespace,
                labels={"artifact": "verified-images"},
                data={digest: who[:512].encode() for digest, who in sorted(self.verified.items())},
                annotations={"signer-policy": under},
            )
            await cluster.children.bring([stamp(published)], manager=names.MANAGER)

    def stored(self, under: str, cluster: Cluster) -> dict[str, str]:
        """Return what was published before under this very SignerPolicy, so that a restart takes nothing away."""
        found = cluster.children.find(types.CONFIG_MAP, Key(cluster.settings.namespace, VERIFIED))
        if found is None or (found["metadata"].get("annotations") or {}).get(SIGNERS) != under:
            return {}
        return dict(found.get("data") or {})


def images(wanted: Iterable[Object]) -> set[str]:
    """Return every image that the pods of a plan run or mount."""
    found = set()
    for one in wanted:
        spec = (one.get("spec") or {}).get("template", {}).get("spec", {}) if one["kind"] == "Deployment" else {}
        for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
            found.add(container["image"])
        found |= {volume["image"]["reference"] for volume in spec.get("volumes", ()) if "image" in volume}
    return found
