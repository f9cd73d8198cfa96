"""The last content that was good, kept across restarts, and the highest generation that was seen.

A record is the artifact itself with the signature that held. It is verified anew when it is loaded, against the
SignerPolicy of that moment, so whoever can write the record can make it unusable but not make it say something, and a
signer who was revoked in between is revoked here, too.

Records are ConfigMaps `last-good-<kind>-<hash>` in the controller's own namespace. In the resource's namespace, anybody
who may edit ConfigMaps could put an older artifact back, or an older number, both with a good signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Mapping

import msgspec

from kars.artifacts.certificates import Roots
from kars.artifacts.contents import Allowlist
from kars.artifacts.evidence import Evidence, Verified, examine
from kars.artifacts.refused import Refused
from kars.artifacts.signers import SignerPolicy

# The ConfigMap's key that the artifact is under, and the one that the number is under.
RECORD, HIGHEST = "record", "generation"
# A ConfigMap holds 1 MiB with its metadata.
RECORD_BYTES = 1_000_000
# What a record may unpack to: contents, a manifest of 4 MiB, a signature.
UNPACKED_BYTES = 6 << 20
LABELS = {"app.kubernetes.io/managed-by": "kars-controller", "kars.azure.com/record": "last-good"}


class Owner(msgspec.Struct, frozen=True):
    """The resource that a record is about."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is packed."""

    owner: str
    media_type: str
    evidence: Evidence


def name(owner: Owner) -> str:
    """Return the ConfigMap's name: one per resource, whatever characters and lengths its name has."""
    return f"last-good-{owner.kind.lower()}-{hashlib.sha256(str(owner).encode()).hexdigest()[:20]}"


def pack(owner: Owner, verified: Verified, highest: int = 0) -> dict[str, str]:
    """Return the ConfigMap's data; without the artifact (the number alone) when it is too large to be kept."""
    data = {HIGHEST: str(max(highest, generation(verified)))}
    if verified.evidence is None:
        return data
    record = Record(str(owner), verified.media_type, verified.evidence)
    packed = base64.b64encode(zlib.compress(msgspec.msgpack.encode(record), 9)).decode()
    return data | {RECORD: packed} if len(packed) <= RECORD_BYTES else data


def highest(data: Mapping[str, str]) -> int:
    """Return the highest generation that a record has seen; 0 when there is none."""
    text = data.get(HIGHEST, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else 0


def unpack(owner: Owner, data: Mapping[str, str]) -> Record:
    """Decode a record of this very resource; `Refused` when it is none. It is not verified yet."""
    try:
        packed = base64.b64decode(data.get(RECORD, ""), validate=True)
        inflater = zlib.decompressobj()
        plain = inflater.decompress(packed, UNPACKED_BYTES)
        # What did not fit is cut off, and then it is no record.
        record = msgspec.msgpack.decode(plain, type=Record)
    except (binascii.Error, zlib.error, msgspec.MsgspecError, ValueError, RecursionError):
        raise Refused("NotFound", f"{owner}: no last-good record that can be read") from None
    if record.owner != str(owner):
        raise Refused("NotFound", f"{owner}: the last-good record is about another resource")
    return record


def restore(owner: Owner, data: Mapping[str, str], media_type: str, *, signers: SignerPolicy, roots: Roots) -> Verified:
    """Return what was kept, verified anew under the SignerPolicy of now; `Refused` otherwise. No network."""
    record = unpack(owner, data)
    if record.media_type != media_type:
        raise Refused("InvalidRef", f"{owner}: the last-good record is of type {record.media_type[:128]!r}")
    verified = examine(record.evidence, media_type, signers, roots)
    advance(highest(data), verified)
    return verified


def generation(verified: Verified) -> int:
    """Return the generation of an allowlist; 0 for kinds that have none."""
    return verified.content.generation if isinstance(verified.content, Allowlist) else 0


def advance(seen: int, verified: Verified) -> int:
    """Return the highest generation including this content's; `Refused` when it is older than what was seen."""
    found = generation(verified)
    if found and found < seen:
        raise Refused(
            "CanonicalFormViolation",
            f"generation {found} is older than {seen}, which was already in force",
            hint="publish the content again with a higher metadata.generation",
        )
    return max(seen, found)


def labels(owner: Owner) -> dict[str, str]:
    """Return the record's labels."""
    return LABELS | {"kars.azure.com/owner-kind": owner.kind}
