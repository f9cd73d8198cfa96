"""Read an audit log back: one record by its decision id, newest first, or those of one sort, oldest first.

A file is read in blocks, so a log of any size takes the same memory. A torn last line is no record; `kars audit
verify` judges the log, this only reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from kars.errors import AuditError, NotFoundError
from kars.local.follow import decode

BLOCK_BYTES = 256 * 1024
# A record's texts are at most 512 bytes each, escaped at most six times that: below 64 KiB all together.
LINE_BYTES = 64 * 1024


def files(directory: Path) -> list[Path]:
    """Return the log's files, oldest first; their names are their days."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == ".jsonl")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"{directory}: no such directory", hint="the router writes its audit log where KARS_AUDIT_DIR says"
        ) from error
    except OSError as error:
        raise AuditError(f"{directory}: {error.strerror}") from error


def find(directory: Path, decision: str) -> tuple[Path, Mapping[str, object]] | None:
    """Return the newest record of a decision id and the file that it stands in."""
    needle = f'"decision_id":"{decision}"'.encode()
    for path in reversed(files(directory)):
        with opened(path) as file:
            for line in backwards(file, needle):
                record = decode(line)
                if record is not None and identity(record) == decision:
                    return path, record
    return None


def records(directory: Path, *, holding: bytes) -> Iterator[Mapping[str, object]]:
    """Yield the records whose line holds some bytes, oldest first."""
    for path in files(directory):
        with opened(path) as file:
            while line := file.readline(LINE_BYTES):
                record = decode(line) if holding in line else None
                if record is not None:
                    yield record


def opened(path: Path) -> BinaryIO:
    """Open one file of the log."""
    try:
        return path.open("rb")
    except OSError as error:
        raise AuditError(f"{path}: {error.strerror}", hint="the log belongs to the router's user") from error


def identity(record: Mapping[str, object]) -> object:
    """Read a record's decision id."""
    call = record.get("call")
    return call.get("decision_id") if isinstance(call, dict) else None


def backwards(file: BinaryIO, needle: bytes) -> Iterator[bytes]:
    """Yield the whole lines that hold `needle`, the last one first."""
    position = file.seek(0, os.SEEK_END)
    rest = b""
    while position > 0:
        start = max(0, position - BLOCK_BYTES)
        file.seek(start)
        block = file.read(position - start) + rest
        position = start
        # The first piece may begin in the block before this one.
        cut = block.find(b"\n") + 1 if start > 0 else 0
        if needle in block:
            yield from (line for line in reversed(block[cut:].split(b"\n")) if needle in line)
        rest = block[:cut] if cut else block[:LINE_BYTES]
