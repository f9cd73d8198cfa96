"""From a reference to verified content."""

from __future__ import annotations

from typing import Any

import msgspec

from kars.artifacts.signers import SignerPolicy
from kars.errors import FailureError
from kars.model.common import OciArtifactRef


class Refused(FailureError):
    """An artifact that is not used; `reason` is one of the closed list that conditions show.

    SignerPolicyMissing, SignerPolicyMalformed, InvalidRef, Unauthorized, NotFound, DigestMismatch,
    SignatureVerifyFailed, IdentityMismatch, CanonicalFormViolation; `Transient` may pass by itself.
    """

    code = "artifact"

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.retryable = reason == "Transient"


class Verified(msgspec.Struct, frozen=True):
    """Content whose signature held."""

    media_type: str
    body: bytes
    content: Any  # what `contents` read: a mapping for JSON kinds, endpoints and generation for an allowlist
    digest: str  # of the manifest, sha256:<hex>
    identity: str  # who signed: subject and issuer, or the key's id


class Artifacts:
    """Fetches and verifies; what was verified under a SignerPolicy is remembered for that very policy only."""

    def __init__(self, *, trusted_root: bytes | None = None, insecure_hosts: frozenset[str] = frozenset()) -> None:
        self.insecure_hosts = insecure_hosts

    async def fetch(self, reference: OciArtifactRef, media_type: str, signers: SignerPolicy) -> Verified:
        """Return verified content; `Refused` otherwise."""
        raise NotImplementedError

    async def check_image(self, image: str, signers: SignerPolicy) -> tuple[str, str]:
        """Return the image pinned by digest, and who signed it; `Refused` when no signature matches."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close every connection."""
        raise NotImplementedError
