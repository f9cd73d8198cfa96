"""Who may sign: the SignerPolicy ConfigMap `kars-signer-policy`, or the controller's variables where there is none."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Key(msgspec.Struct, frozen=True):
    """A public key that may sign without a certificate."""

    id: str
    public_key: bytes  # 32 bytes (Ed25519), or a PEM text (ECDSA P-256)
    allowed_subjects: tuple[str, ...] = ()


class SignerPolicy(msgspec.Struct, frozen=True):
    """Whose signatures count: certificates by issuer and subject, and keys."""

    issuers: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()  # exact, glob (* and ?), or re:<regular expression>
    keys: tuple[Key, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nobody may sign."""
        return not (self.keys or (self.issuers and self.subjects))


def read(data: Mapping[str, str]) -> SignerPolicy:
    """Read the ConfigMap's data; `Refused` with SignerPolicyMalformed names the line that is wrong."""
    raise NotImplementedError
