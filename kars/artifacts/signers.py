"""Who may sign: the SignerPolicy ConfigMap `kars-signer-policy`, or the controller's variables where there is none.

The ConfigMap's data has these members and no others:

    fulcioIssuers   OIDC issuers, one a line          both or neither; `#` begins a line that is a comment
    sanPatterns     subjects of certificates, one a line: exact, glob, or re:<expression> (`patterns`)
    ed25519Keys     JSON: [{id, publicKeyBase64, allowedSubjects}], the key as 32 bytes or as 44 bytes of DER
    publicKeys      JSON: [{id, publicKeyPem, allowedSubjects}], ECDSA P-256 or Ed25519

`allowedSubjects` are globs over `registry/repository`, what the signature is about; a key without any may sign for
every repository.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from kars.artifacts import patterns, strict
from kars.artifacts.refused import Refused

NAME = "kars-signer-policy"
NOBODY = f"nobody may sign: {NAME} names neither a key nor a certificate by issuer and subject"
# People and pipelines that sign; each is tried against each signature.
ISSUERS = 32
SUBJECTS = 256
KEYS = 32
ALLOWED = 64
ISSUER = re.compile(r"https?://[!-~]{1,500}\Z")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
# SubjectPublicKeyInfo of Ed25519 up to the key itself (RFC 8410).
ED25519_DER = bytes.fromhex("302a300506032b6570032100")
ISSUER_LINES, SUBJECT_LINES, RAW_KEYS, PEM_KEYS = "fulcioIssuers", "sanPatterns", "ed25519Keys", "publicKeys"
MEMBERS = (ISSUER_LINES, SUBJECT_LINES, RAW_KEYS, PEM_KEYS)
# A ConfigMap's own bound is 1 MiB; a policy is read anew for every change.
MEMBER_BYTES = 256 << 10


class Key(msgspec.Struct, frozen=True):
    """A public key that may sign without a certificate."""

    id: str
    public_key: bytes  # 32 bytes (Ed25519), or a PEM text (ECDSA P-256)
    allowed_subjects: tuple[str, ...] = ()

    def may_sign(self, repository: str) -> bool:
        """Whether the key counts for `registry/repository`."""
        return not self.allowed_subjects or any(
            patterns.matches(allowed, repository) for allowed in self.allowed_subjects
        )


class SignerPolicy(msgspec.Struct, frozen=True):
    """Whose signatures count: certificates by issuer and subject, and keys."""

    issuers: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()  # exact, glob (* and ?), or re:<regular expression>
    keys: tuple[Key, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nobody may sign."""
        return not (self.keys or (self.issuers and self.subjects))

    def may_sign(self, issuer: str, subject: str, *, url: bool) -> bool:
        """Whether a certificate's issuer and subject (a URL or an e-mail address) count."""
        return issuer in self.issuers and any(
            patterns.about_urls(pattern) == url and patterns.matches(pattern, subject) for pattern in self.subjects
        )


def read(data: Mapping[str, str]) -> SignerPolicy:
    """Read the ConfigMap's data; `Refused` with SignerPolicyMalformed names the line that is wrong."""
    for member, text in data.items():
        if member not in MEMBERS:
            raise malformed(f"{member!r} is not one of {', '.join(MEMBERS)}")
        if len(text) > MEMBER_BYTES:
            raise malformed(f"{member} has {len(text)} characters; at most {MEMBER_BYTES} are read")
    issuers = lines(data, ISSUER_LINES)
    subjects = lines(data, SUBJECT_LINES)
    keys = (*raw_keys(data.get(RAW_KEYS, "")), *pem_keys(data.get(PEM_KEYS, "")))
    seen: set[str] = set()
    for key in keys:
        if key.id in seen:
            raise malformed(f"there are two keys with id {key.id!r}")
        seen.add(key.id)
    if bool(issuers) != bool(subjects) or not (issuers or keys):
        missing = ISSUER_LINES if not issuers else SUBJECT_LINES
        raise malformed(f"{missing} names nobody; issuers and patterns count together")
    return checked(issuers, subjects, keys)


def fallback(issuers: Iterable[str], subjects: Iterable[str]) -> SignerPolicy:
    """Make the policy of the variables KARS_SIGNER_FULCIO_ISSUERS and KARS_SIGNER_SAN_PATTERNS; empty without both."""
    return checked(
        [(0, issuer.strip()) for issuer in issuers if issuer.strip()],
        [(0, subject.strip()) for subject in subjects if subject.strip()],
        (),
    )


def checked(issuers: list[tuple[int, str]], subjects: list[tuple[int, str]], keys: tuple[Key, ...]) -> SignerPolicy:
    """Hold every line to what it can be."""
    for member, found, most in ((ISSUER_LINES, issuers, ISSUERS), (SUBJECT_LINES, subjects, SUBJECTS)):
        if len(found) > most:
            raise malformed(f"{member} has {len(found)} entries; at most {most} are read")
    if len(keys) > KEYS:
        raise malformed(f"there are {len(keys)} keys; at most {KEYS} are read")
    for number, issuer in issuers:
        if not ISSUER.match(issuer):
            raise malformed(f"{ISSUER_LINES}{line(number)}: {issuer!r} is not an http(s) URL without spaces")
    for number, subject in subjects:
        try:
            patterns.compiled(subject)
        except ValueError as error:
            raise malformed(f"{SUBJECT_LINES}{line(number)}: {error}") from None
    return SignerPolicy(
        tuple(dict.fromkeys(issuer for _, issuer in issuers)),
        tuple(dict.fromkeys(subject for _, subject in subjects)),
        keys,
    )


def line(number: int) -> str:
    """Name a line, where there are lines."""
    return f", line {number}" if number else ""


def lines(data: Mapping[str, str], member: str) -> list[tuple[int, str]]:
    """Return the lines that are neither empty nor comments, with their numbers."""
    found = enumerate(data.get(member, "").splitlines(), start=1)
    return [(number, text.strip()) for number, text in found if text.strip() and not text.strip().startswith("#")]


class RawKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """An item of ed25519Keys."""

    id: str
    public_key_base64: str
    allowed_subjects: tuple[str, ...] = ()


class PemKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """An item of publicKeys."""

    id: str
    public_key_pem: str
    allowed_subjects: tuple[str, ...] = ()


def raw_keys(text: str) -> list[Key]:
    """Read ed25519Keys."""
    found = []
    for item in items(text, RAW_KEYS, tuple[RawKey, ...]):
        try:
            data = base64.b64decode(item.public_key_base64, validate=True)
        except (binascii.Error, ValueError):
            raise malformed(f"{RAW_KEYS}, key {item.id!r}: publicKeyBase64 is not base64") from None
        if len(data) == len(ED25519_DER) + 32 and data.startswith(ED25519_DER):
            data = data.removeprefix(ED25519_DER)
        if len(data) != 32:
            raise malformed(f"{RAW_KEYS}, key {item.id!r}: {len(data)} bytes are no Ed25519 key (32, or 44 of DER)")
        found.append(key(item, RAW_KEYS, data))
    return found


def pem_keys(text: str) -> list[Key]:
    """Read publicKeys."""
    from kars.artifacts import keys

    found = []
    for item in items(text, PEM_KEYS, tuple[PemKey, ...]):
        try:
            data = keys.canonical(item.public_key_pem)
        except ValueError as error:
            raise malformed(f"{PEM_KEYS}, key {item.id!r}: {error}") from None
        found.append(key(item, PEM_KEYS, data))
    return found


def items(text: str, member: str, kind: Any) -> Any:  # noqa: ANN401 - a type, and what it decodes to
    """Decode a JSON array of one kind; nothing is none."""
    if not text.strip():
        return ()
    try:
        return msgspec.convert(strict.json(text.encode()), kind)
    except (strict.NotCanonical, msgspec.ValidationError) as error:
        raise malformed(f"{member}: {error}") from None


def key(item: Any, member: str, data: bytes) -> Key:  # noqa: ANN401 - a RawKey or a PemKey
    """Hold a key's id and its patterns to what they can be."""
    if not LABEL.match(item.id):
        raise malformed(f"{member}: id {item.id!r} is not a DNS label")
    if len(item.allowed_subjects) > ALLOWED:
        raise malformed(f"{member}, key {item.id!r}: more than {ALLOWED} allowedSubjects")
    for allowed in item.allowed_subjects:
        try:
            patterns.compiled(allowed)
        except ValueError as error:
            raise malformed(f"{member}, key {item.id!r}, allowedSubjects: {error}") from None
    return Key(item.id, data, item.allowed_subjects)


def malformed(message: str) -> Refused:
    """Say that the policy is not one."""
    return Refused("SignerPolicyMalformed", f"{NAME}: {message}", hint="docs/signing.md shows a SignerPolicy")
