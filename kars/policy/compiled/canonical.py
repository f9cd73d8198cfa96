"""Canonical bytes and digests: the router hashes the mounted file again, so both must agree byte for byte."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def compact(document: Any) -> bytes:  # noqa: ANN401 - a document of any shape
    """Write JSON without spaces, as UTF-8, members in the order of insertion."""
    raise NotImplementedError


def digest(files: Iterable[tuple[str, bytes]]) -> str:
    """Return `sha256:<hex>` over the files in order: length and name, length and body, lengths as 64 bits big-endian."""
    raise NotImplementedError


def version_hash(document: bytes, digits: int = 32) -> str:
    """Return the first hex digits of the document's SHA-256."""
    raise NotImplementedError
