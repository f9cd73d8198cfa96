"""Signatures by a public key that the SignerPolicy names: ECDSA P-256 with SHA-256, and Ed25519."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# A public key of P-256 in PEM takes 178 bytes.
PEM_BYTES = 4096
RAW = 32


def canonical(pem: str) -> bytes:
    """Return a key as the SignerPolicy holds it: PEM of P-256, or 32 bytes of Ed25519; `ValueError` says why not."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    if len(pem) > PEM_BYTES:
        raise ValueError(f"publicKeyPem has {len(pem)} characters; at most {PEM_BYTES} are read")
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("publicKeyPem is no public key in PEM") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    raise ValueError("publicKeyPem is neither ECDSA P-256 nor Ed25519")


def holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature of a message is this key's."""
    return ed25519(public_key, signature, message) if len(public_key) == RAW else ecdsa(public_key, signature, message)


def ed25519(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Verify RFC 8032's Ed25519, or its Ed25519ph (over SHA-512, without context), which is what cosign makes.

    No message is a signature of one kind and of the other at once: ph signs under a prefix of its own (5.1). libsodium
    refuses keys of small order and signatures in another form than the one.
    """
    from nacl import bindings
    from nacl.exceptions import CryptoError

    if len(signature) != bindings.crypto_sign_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except CryptoError:
        state = bindings.crypto_sign_ed25519ph_state()
        bindings.crypto_sign_ed25519ph_update(state, message)
    else:
        return True
    try:
        return bindings.crypto_sign_ed25519ph_final_verify(state, signature, public_key)
    except CryptoError:
        return False


def ecdsa(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Verify ECDSA over P-256 and SHA-256, the signature in DER."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        loaded(public_key).verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=64)
def loaded(public_key: bytes) -> Any:  # noqa: ANN401 - an EllipticCurvePublicKey; the import is lazy
    """Load a key that `canonical` wrote."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(public_key)
