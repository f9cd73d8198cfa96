"""Keyless signatures: a certificate of minutes, logged, verified by the `sigstore` library against an offline root.

Every check stays the library's: the chain at the time of signing, the certificate's SCT, the log entry's inclusion
proof and checkpoint (or, for the older layout, which has none, the log's signed promise), the entry's body against the
signature. This file only hands the parts over, and reads who the certificate names.

The older layout's parts go to functions of the library that it keeps to itself, because its public door takes no
entry without an inclusion proof; requirements/runtime.txt pins the version that the tests hold this to.
"""

from __future__ import annotations

import base64
import binascii
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from kars.artifacts import claims
from kars.artifacts.claims import failed
from kars.artifacts.refused import Refused

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier

# Extensions of Fulcio's certificates: https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
ISSUER = "1.3.6.1.4.1.57264.1.8"  # DER, an UTF8String
ISSUER_OLD = "1.3.6.1.4.1.57264.1.1"  # the bare text
# A certificate of Fulcio takes some 3 KiB in PEM.
PEM_BYTES = 16 << 10
PUBLIC_GOOD = "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"


class Signer(msgspec.Struct, frozen=True):
    """Whom a certificate names."""

    issuer: str
    subject: str
    url: bool  # whether the subject is a URL; an e-mail address otherwise

    def __str__(self) -> str:
        return f"{self.subject} ({self.issuer})"


class Promise(msgspec.Struct, frozen=True):
    """The annotation dev.sigstore.cosign/bundle: what the log signed when it took the entry."""

    signed_entry_timestamp: str = msgspec.field(name="SignedEntryTimestamp")
    payload: Entry = msgspec.field(name="Payload")


class Entry(msgspec.Struct, frozen=True, rename={"integrated_time": "integratedTime", "log_index": "logIndex"}):
    """An entry of the log; `body` and `log_id` as base64 and hex."""

    body: str
    integrated_time: int
    log_index: int
    log_id: str = msgspec.field(name="logID")


class Roots:
    """The roots that certificates and logs are held to, read once when the first certificate comes.

    `trusted_root` is a Sigstore TrustedRoot as JSON; without one, the public-good root that came with the library.
    """

    def __init__(self, trusted_root: bytes | None = None) -> None:
        self.source = trusted_root
        self.lock = threading.Lock()
        self.made: tuple[TrustedRoot, Verifier] | None = None

    def read(self) -> tuple[TrustedRoot, Verifier]:
        """Return the root and the library's verifier; `Refused` when the root is not one."""
        with self.lock:
            if self.made is None:
                self.made = make(self.source if self.source is not None else public_good())
            return self.made


def public_good() -> bytes:
    """Return the root of the public-good instance that the library was published with."""
    from importlib import resources

    return resources.files("sigstore._store").joinpath(PUBLIC_GOOD, "trusted_root.json").read_bytes()


def make(document: bytes) -> tuple[TrustedRoot, Verifier]:
    """Make the library's objects of a TrustedRoot's JSON."""
    from sigstore.errors import Error
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier
    from sigstore_models.trustroot.v1 import TrustedRoot as Document

    try:
        root = TrustedRoot(Document.from_json(document))
        return root, Verifier(trusted_root=root)
    except (ValueError, Error):
        raise Refused(
            "SignatureVerifyFailed",
            "the controller's trusted root is not a Sigstore TrustedRoot with a CA and a log",
            hint="docs/signing.md says how to export one",
        ) from None


class Seen:
    """Takes the place of the library's policy: accepts any certificate and remembers it.

    Who it names is asked afterwards, so that a name only ever decides about a signature that holds.
    """

    def __init__(self) -> None:
        self.certificate: Certificate | None = None

    def verify(self, cert: Certificate) -> None:
        """Remember the certificate."""
        self.certificate = cert


def verify_bundle(roots: Roots, document: bytes, manifest: bytes, digest: str) -> Signer:
    """Verify a bundle with a certificate over a manifest; `Refused` says what does not hold."""
    _, verifier = roots.read()
    seen = Seen()
    try:
        from sigstore.models import Bundle

        bundle = Bundle.from_json(document)
        if bundle._inner.dsse_envelope is not None:  # noqa: SLF001 - the library has no question for it
            claims.statement(*verifier.verify_dsse(bundle, seen), digest)
        else:
            verifier.verify_artifact(manifest, bundle, seen)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - whatever untrusted bytes make a verifier raise, they did not verify
        raise failed(told(error)) from None
    if seen.certificate is None:
        raise failed("the bundle has no certificate")
    return signer(seen.certificate)


def verify_promised(roots: Roots, payload: bytes, signature: bytes, pem: str, annotation: str) -> Signer:
    """Verify a signature of the older layout: a certificate, and the log's promise; `Refused` says what fails."""
    root, verifier = roots.read()
    try:
        certificate, promise = parts(pem, annotation)
        check_certificate(root, verifier, certificate, promise.payload.integrated_time)
        check_promise(root, promise)
        check_signature(certificate, payload, signature, promise)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - whatever untrusted bytes make a verifier raise, they did not verify
        raise failed(told(error)) from None
    return signer(certificate)


def parts(pem: str, annotation: str) -> tuple[Certificate, Promise]:
    """Decode the certificate and the log's promise."""
    from cryptography.x509 import load_pem_x509_certificate

    if len(pem) > PEM_BYTES:
        raise failed("the certificate is too large")
    if not annotation:
        raise failed("the signature has no log entry (dev.sigstore.cosign/bundle)")
    return load_pem_x509_certificate(pem.encode()), msgspec.json.decode(annotation, type=Promise)


def check_certificate(root: TrustedRoot, verifier: Verifier, certificate: Certificate, seconds: int) -> None:
    """Check chain, validity at the time of signing, SCT and usage."""
    from cryptography.x509 import ExtendedKeyUsage, KeyUsage
    from cryptography.x509.oid import ExtendedKeyUsageOID
    from sigstore._internal.sct import verify_sct
    from sigstore._internal.timestamp import TimestampSource, TimestampVerificationResult
    from sigstore._internal.trust import KeyringPurpose

    moment = datetime.fromtimestamp(seconds, tz=UTC)
    logged = TimestampVerificationResult(source=TimestampSource.TRANSPARENCY_SERVICE, time=moment)
    chain = verifier._verify_chain_at_time(certificate, logged)  # noqa: SLF001 - see the module's text
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise failed("the certificate was not valid at the time of signing")
    verify_sct(certificate, chain, root.ct_keyring(KeyringPurpose.VERIFY))
    if not certificate.extensions.get_extension_for_class(KeyUsage).value.digital_signature:
        raise failed("the certificate is not for signatures")
    usages = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    if ExtendedKeyUsageOID.CODE_SIGNING not in usages:
        raise failed("the certificate is not for signing code")


def check_promise(root: TrustedRoot, promise: Promise) -> None:
    """Check the log's signature over the entry: canonical JSON of these four members (RFC 8785)."""
    from sigstore._internal.trust import KeyringPurpose

    entry = promise.payload
    signed = {
        "body": entry.body,
        "integratedTime": entry.integrated_time,
        "logID": entry.log_id,
        "logIndex": entry.log_index,
    }
    root.rekor_keyring(KeyringPurpose.VERIFY).verify(
        key_id=bytes.fromhex(entry.log_id),  # type: ignore[arg-type]
        signature=base64.b64decode(promise.signed_entry_timestamp, validate=True),
        data=msgspec.json.encode(signed, order="sorted"),
    )


def check_signature(certificate: Certificate, payload: bytes, signature: bytes, promise: Promise) -> None:
    """Check the signature over the payload, and that the log entry is about these very bytes."""
    import rekor_types
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from sigstore._internal.rekor import _hashedrekord_from_parts
    from sigstore._utils import sha256_digest

    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise failed("the certificate's key is not ECDSA")
    key.verify(signature, payload, ECDSA(SHA256()))
    body = base64.b64decode(promise.payload.body, validate=True)
    logged = rekor_types.Hashedrekord.model_validate_json(body)
    if logged != _hashedrekord_from_parts(certificate, signature, sha256_digest(payload)):
        raise failed("the log entry is about something else")


def signer(certificate: Certificate) -> Signer:
    """Read whom a verified certificate names: one issuer and one subject."""
    from cryptography.x509 import RFC822Name, SubjectAlternativeName, UniformResourceIdentifier

    names = list(certificate.extensions.get_extension_for_class(SubjectAlternativeName).value)
    if len(names) != 1 or not isinstance(names[0], (RFC822Name, UniformResourceIdentifier)):
        raise Refused("IdentityMismatch", "the certificate's subject is not one URL or e-mail address")
    return Signer(issuer(certificate), names[0].value, isinstance(names[0], UniformResourceIdentifier))


def issuer(certificate: Certificate) -> str:
    """Read who vouched for the subject."""
    from cryptography.x509 import UnrecognizedExtension

    found: dict[str, bytes] = {}
    for extension in certificate.extensions:
        if isinstance(extension.value, UnrecognizedExtension):
            found[extension.oid.dotted_string] = extension.value.value
    try:
        if ISSUER in found:
            return utf8(found[ISSUER])
        return found[ISSUER_OLD].decode()
    except (KeyError, ValueError):
        raise Refused("IdentityMismatch", "the certificate does not say who vouched for its subject") from None


def utf8(der: bytes) -> str:
    """Read a DER UTF8String of up to 64 KiB."""
    if len(der) > 2 and der[0] == 0x0C:
        size, start = der[1], 2
        if size in {0x81, 0x82}:
            start += size - 0x80
            size = int.from_bytes(der[2:start], "big")
        elif size > 0x82:
            raise ValueError("not a UTF8String")
        if len(der) == start + size:
            return der[start:].decode()
    raise ValueError("not a UTF8String")


def told(error: Exception) -> str:
    """Say why a verifier refused, in one bounded line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(char for char in text if char.isprintable())[:256]


def decode(text: str) -> bytes:
    """Decode base64 strictly; `Refused` otherwise."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise failed("the signature is not base64") from None
