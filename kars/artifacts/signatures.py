"""Whether a manifest is signed by somebody whom the SignerPolicy names: cosign's signatures, old layers and bundles.

Pure: everything that a signature needs is in memory, nothing is fetched, so that what was kept can be verified again.
One signature that holds is enough; those that do not are only reasons when none does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from kars.artifacts import certificates, claims, keys, strict
from kars.artifacts.certificates import Roots, decode
from kars.artifacts.claims import failed
from kars.artifacts.refused import Refused
from kars.artifacts.signers import NOBODY, Key, SignerPolicy

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
# cosign 2's layers as a referrer, where it was asked to (--registry-referrers-mode=oci-1-1).
SIMPLE_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
CERTIFICATE_ANNOTATION = "dev.sigstore.cosign/certificate"
LOG_ANNOTATION = "dev.sigstore.cosign/bundle"
KEPT_ANNOTATIONS = (SIGNATURE_ANNOTATION, CERTIFICATE_ANNOTATION, LOG_ANNOTATION)
# A bundle with a certificate, an entry and its proof takes some 12 KiB, a payload 300 bytes.
SIGNATURE_BYTES = 256 << 10
# Signatures that are tried on one manifest: who may push can add any number.
SIGNATURES = 32
# Reasons that are told of signatures that do not hold.
TOLD = 3


class Signature(msgspec.Struct, frozen=True):
    """A signature as the registry has it: a bundle, or a simple signing payload with annotations."""

    form: Literal["bundle", "simple"]
    body: bytes
    annotations: dict[str, str] = {}


class Target(msgspec.Struct, frozen=True):
    """What has to be signed: a manifest's bytes, their digest, and `registry/repository`."""

    manifest: bytes
    digest: str
    repository: str


class Signed(msgspec.Struct, frozen=True):
    """Who signed, and the signature that says so."""

    identity: str
    signature: Signature


def verify(target: Target, signatures: Iterable[Signature], *, signers: SignerPolicy, roots: Roots) -> Signed:
    """Return the first signature over a manifest that holds and counts.

    `Refused`: SignerPolicyMissing when nobody may sign, IdentityMismatch when a signature holds but its signer is not
    named, SignatureVerifyFailed otherwise.
    """
    if signers.empty:
        raise Refused("SignerPolicyMissing", NOBODY, hint="docs/signing.md shows one")
    reasons: list[Refused] = []
    for signature in list(signatures)[:SIGNATURES]:
        check = bundle if signature.form == "bundle" else simple
        try:
            identity = check(signature, target, signers=signers, roots=roots)
        except Refused as refused:
            reasons.append(refused)
        else:
            return Signed(identity, signature)
    raise summary(reasons, f"{target.repository}@{target.digest}")


def summary(reasons: list[Refused], what: str) -> Refused:
    """Make one reason of many: a signature by a stranger says more than one that does not hold."""
    if not reasons:
        return Refused("SignatureVerifyFailed", f"{what} has no signature", hint="docs/signing.md says how to sign")
    strangers = [refused for refused in reasons if refused.reason == "IdentityMismatch"]
    chosen = strangers or reasons
    texts = list(dict.fromkeys(str(refused) for refused in chosen))[:TOLD]
    hint = chosen[0].hint or "the ConfigMap kars-signer-policy says whose signatures count"
    return Refused(chosen[0].reason, f"{what}: {'; '.join(texts)}", hint=hint)


def simple(signature: Signature, target: Target, *, signers: SignerPolicy, roots: Roots) -> str:
    """Verify a signature of the older layout, by certificate where it has one, by key otherwise."""
    raw = decode(signature.annotations.get(SIGNATURE_ANNOTATION, ""))
    pem = signature.annotations.get(CERTIFICATE_ANNOTATION, "")
    if pem:
        needs_certificates(signers)
        annotation = signature.annotations.get(LOG_ANNOTATION, "")
        signer = certificates.verify_promised(roots, signature.body, raw, pem, annotation)
        claims.simple(signature.body, target.digest, target.repository)
        return named(signer, signers)
    key = key_of(signers, raw, signature.body)
    claims.simple(signature.body, target.digest, target.repository)
    return allowed(key, target.repository)


def bundle(signature: Signature, target: Target, *, signers: SignerPolicy, roots: Roots) -> str:
    """Verify a bundle, by certificate where it has one, by key otherwise."""
    document = read_bundle(signature.body)
    if document.verification_material.public_key is None:
        needs_certificates(signers)
        return named(certificates.verify_bundle(roots, signature.body, target.manifest, target.digest), signers)
    if document.dsse_envelope is not None:
        envelope = document.dsse_envelope
        if len(envelope.signatures) != 1:
            raise failed("the envelope has not exactly one signature")
        payload = decode(envelope.payload)
        key = key_of(signers, decode(envelope.signatures[0].sig), pae(envelope.payload_type, payload))
        claims.statement(envelope.payload_type, payload, target.digest)
    elif document.message_signature is not None:
        key = key_of(signers, decode(document.message_signature.signature), target.manifest)
    else:
        raise failed("the bundle has no signature")
    return allowed(key, target.repository)


class EnvelopeSignature(msgspec.Struct, frozen=True):
    """A signature of an envelope; its keyid is a hint that nothing is built on."""

    sig: str


class Envelope(msgspec.Struct, frozen=True, rename="camel"):
    """A DSSE envelope."""

    payload: str
    payload_type: str
    signatures: tuple[EnvelopeSignature, ...]


class MessageSignature(msgspec.Struct, frozen=True):
    """A signature over the manifest's bytes."""

    signature: str


class Material(msgspec.Struct, frozen=True, rename="camel"):
    """What a bundle is verified with, as far as a key needs it."""

    public_key: Any = None


class BundleDocument(msgspec.Struct, frozen=True, rename="camel"):
    """A bundle, as far as a key needs it: https://github.com/sigstore/protobuf-specs, sigstore_bundle.proto."""

    media_type: str
    verification_material: Material
    dsse_envelope: Envelope | None = None
    message_signature: MessageSignature | None = None


def read_bundle(data: bytes) -> BundleDocument:
    """Decode a bundle."""
    try:
        document = msgspec.convert(strict.json(data), BundleDocument)
    except (strict.NotCanonical, msgspec.ValidationError) as error:
        raise failed(f"the bundle is not one: {error}") from None
    if document.media_type != BUNDLE:
        raise failed(f"the bundle is {document.media_type[:64]!r}, not {BUNDLE}")
    if document.dsse_envelope is not None and document.message_signature is not None:
        raise failed("the bundle has two contents")
    return document


def pae(payload_type: str, payload: bytes) -> bytes:
    """Encode what a DSSE signature is over: https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_of(signers: SignerPolicy, signature: bytes, message: bytes) -> Key:
    """Return the key that made a signature."""
    for key in signers.keys:
        if keys.holds(key.public_key, signature, message):
            return key
    raise failed("the signature is by none of the SignerPolicy's keys")


def allowed(key: Key, repository: str) -> str:
    """Return who a key is, if it may sign for this repository."""
    if not key.may_sign(repository):
        raise Refused("IdentityMismatch", f"key {key.id!r} may not sign for {repository} (allowedSubjects)")
    return f"key {key.id}"


def needs_certificates(signers: SignerPolicy) -> None:
    """Refuse a certificate where the policy names keys only, before anything is spent on it."""
    if not (signers.issuers and signers.subjects):
        raise Refused("IdentityMismatch", "a certificate signed, and the SignerPolicy names only keys")


def named(signer: certificates.Signer, signers: SignerPolicy) -> str:
    """Return who a certificate names, if the policy does, too."""
    if not signers.may_sign(signer.issuer, signer.subject, url=signer.url):
        text = certificates.told(ValueError(str(signer)))
        raise Refused("IdentityMismatch", f"signed by {text}, whom the SignerPolicy does not name")
    return str(signer)
