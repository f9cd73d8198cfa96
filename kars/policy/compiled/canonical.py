"""Canonical bytes and digests: the router hashes the mounted file again, so both must agree byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any


def compact(document: Any) -> bytes:  # noqa: ANN401 - a document of any shape
    """Write JSON without spaces, as UTF-8, members in the order of insertion."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def pretty(document: Any) -> bytes:  # noqa: ANN401 - a document of any shape
    """Write JSON for people: two spaces a level, no line feed at the end; for documents that no router hashes."""
    return json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False).encode()


def digest(files: Iterable[tuple[str, bytes]]) -> str:
    """Return `sha256:<hex>` over the files by name: length and name, length and body, lengths as 64 bits big-endian."""
    hashed = sha256()
    for name, body in sorted(files):
        for part in (name.encode(), body):
            hashed.update(len(part).to_bytes(8, "big"))
            hashed.update(part)
    return f"sha256:{hashed.hexdigest()}"


def version_hash(document: bytes, digits: int = 32) -> str:
    """Return the first hex digits of the document's SHA-256."""
    return sha256(document).hexdigest()[:digits]
