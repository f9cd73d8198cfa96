"""An artifact with everything that its verification needs, and the verification: bytes in, content out, no network."""

from __future__ import annotations

from typing import Any

import msgspec

from kars.artifacts import contents
from kars.artifacts.certificates import Roots
from kars.artifacts.references import Repository
from kars.artifacts.refused import Refused
from kars.artifacts.registry import INDEX, Descriptor, Manifest, digest_of, manifest_of
from kars.artifacts.signatures import Signature, Target, verify
from kars.artifacts.signers import SignerPolicy

# Files of one artifact; a policy is one, or a few that are read one after the other.
LAYERS = 16


class Evidence(msgspec.Struct, frozen=True):
    """An artifact as its registry holds it, and signatures over its manifest."""

    repository: Repository
    digest: str
    manifest: bytes
    layers: tuple[bytes, ...]
    signatures: tuple[Signature, ...]


class Verified(msgspec.Struct, frozen=True):
    """Content whose signature held."""

    media_type: str
    body: bytes
    content: Any  # what `contents` read: a mapping, or an `Allowlist`
    digest: str  # of the manifest, sha256:<hex>
    identity: str  # who signed: subject and issuer, or the key's id
    evidence: Evidence | None = None  # with the one signature that held, for `held`


def layers_of(manifest: Manifest, media_type: str, what: str) -> tuple[Descriptor, ...]:
    """Return the layers of an artifact of a media type; `Refused` with InvalidRef for other things."""
    if manifest.manifests or manifest.media_type == INDEX:
        raise Refused("InvalidRef", f"{what} is an index, not an artifact")
    declared = manifest.artifact_type or (manifest.config.media_type if manifest.config else "")
    if declared != media_type and (
        manifest.artifact_type or any(one.media_type != media_type for one in manifest.layers)
    ):
        raise Refused("InvalidRef", f"{what} is of type {declared[:128]!r}, not {media_type}")
    if not 1 <= len(manifest.layers) <= LAYERS:
        raise Refused("InvalidRef", f"{what} has {len(manifest.layers)} layers; 1 to {LAYERS} are read")
    if sum(max(layer.size, 0) for layer in manifest.layers) > contents.CONTENT_BYTES:
        raise Refused("CanonicalFormViolation", f"{what} holds more than {contents.CONTENT_BYTES} bytes")
    return manifest.layers


def examine(evidence: Evidence, media_type: str, signers: SignerPolicy, roots: Roots) -> Verified:
    """Verify an artifact: digests first, then the signature, and only then the content."""
    what = f"{evidence.repository}@{evidence.digest}"
    if digest_of(evidence.manifest) != evidence.digest:
        raise Refused("DigestMismatch", f"{what}: the manifest is another one")
    descriptors = layers_of(manifest_of(evidence.manifest), media_type, what)
    if [one.digest for one in descriptors] != [digest_of(layer) for layer in evidence.layers]:
        raise Refused("DigestMismatch", f"{what}: the layers are not the manifest's")
    target = Target(evidence.manifest, evidence.digest, str(evidence.repository))
    signed = verify(target, evidence.signatures, signers=signers, roots=roots)
    body = b"".join(evidence.layers)
    content = contents.read(media_type, body)
    kept = msgspec.structs.replace(evidence, signatures=(signed.signature,))
    return Verified(media_type, body, content, evidence.digest, signed.identity, kept)
