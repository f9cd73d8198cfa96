"""What a signature says: which manifest it is about, and that it is a signature and not some other attestation.

simple signing   https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
in-toto          https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

from typing import Any

import msgspec

from kars.artifacts import strict
from kars.artifacts.references import DOCKER_ALIASES, DOCKER_HUB
from kars.artifacts.refused import Refused

SIMPLE_TYPE = "cosign container image signature"
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
# An attestation by the same signer (a vulnerability scan, a bill of materials) approves nothing.
PREDICATE = "https://sigstore.dev/cosign/sign/v1"
# Manifests that one statement is about; cosign names one.
SUBJECTS = 64


class Identity(msgspec.Struct, frozen=True):
    """`critical.identity`."""

    docker_reference: str = msgspec.field(name="docker-reference", default="")


class Picture(msgspec.Struct, frozen=True):
    """`critical.image`."""

    docker_manifest_digest: str = msgspec.field(name="docker-manifest-digest")


class Critical(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a reader must understand, all of it."""

    image: Picture
    type: str
    identity: Identity = Identity()


class Simple(msgspec.Struct, frozen=True):
    """A simple signing payload; what is optional is passed over."""

    critical: Critical


class Subject(msgspec.Struct, frozen=True):
    """A thing that a statement is about."""

    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, rename="camel"):
    """An in-toto statement."""

    type: str = msgspec.field(name="_type")
    subject: tuple[Subject, ...]
    predicate_type: str


def simple(payload: bytes, digest: str, repository: str) -> None:
    """Check that a simple signing payload is about this manifest in this repository; `Refused` otherwise."""
    critical = decoded(payload, Simple, "payload").critical
    if critical.type != SIMPLE_TYPE:
        raise failed(f"the payload's critical.type is {critical.type[:64]!r}")
    if critical.image.docker_manifest_digest != digest:
        raise failed("the payload is about another manifest (critical.image.docker-manifest-digest)")
    reference = critical.identity.docker_reference
    if reference and bare(reference) != bare(repository):
        raise Refused(
            "IdentityMismatch",
            f"the payload is about {reference[:256]!r}, not about {repository} (critical.identity.docker-reference)",
            hint="a mirror is signed with cosign's --sign-container-identity, or in the bundle format",
        )


def bare(reference: str) -> str:
    """Return host and repository of a reference without tag and digest; Docker Hub has one name."""
    host, slash, rest = reference.partition("@")[0].partition("/")
    path, colon, tag = rest.rpartition(":")
    rest = path if colon and "/" not in tag else rest
    return f"{DOCKER_HUB if host in DOCKER_ALIASES else host}{slash}{rest}"


def statement(payload_type: str, payload: bytes, digest: str) -> None:
    """Check that an in-toto statement signs this manifest; `Refused` otherwise."""
    if payload_type != IN_TOTO:
        raise failed(f"the envelope holds {payload_type[:64]!r} and no in-toto statement")
    said = decoded(payload, Statement, "statement")
    if said.type != STATEMENT:
        raise failed(f"the statement's _type is {said.type[:64]!r}")
    if said.predicate_type != PREDICATE:
        raise failed(f"an attestation ({said.predicate_type[:128]!r}) is no signature")
    if len(said.subject) > SUBJECTS or all(f"sha256:{about.digest.get('sha256')}" != digest for about in said.subject):
        raise failed("the statement is about another manifest")


def decoded(data: bytes, kind: Any, what: str) -> Any:  # noqa: ANN401 - a type, and a value of it
    """Read JSON of a kind strictly: two readers must not see two digests in one payload."""
    try:
        return msgspec.convert(strict.json(data), kind)
    except (strict.NotCanonical, msgspec.ValidationError) as error:
        raise failed(f"the {what} is not what cosign signs: {error}") from None


def failed(message: str) -> Refused:
    """Say that a signature does not hold."""
    return Refused("SignatureVerifyFailed", message)
