"""What is said of an artifact that is not used."""

from __future__ import annotations

from kars.errors import FailureError


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

    @property
    def told(self) -> str:
        """What conditions show: why, and what to do about it."""
        return f"{self} ({self.hint})" if self.hint else str(self)
