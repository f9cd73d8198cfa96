"""Follow an audit log and lay each record out as one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

# One read of the log's tail; a record is below 1 KiB, so this is hundreds of calls.
READ_BYTES = 256 * 1024

GREEN, RED, YELLOW, DIM, OFF = "\033[32m", "\033[31m", "\033[33m", "\033[2m", "\033[0m"


class Tail:
    """Whole lines appended to the newest `*.jsonl` file of a directory. Each `records` call reads what is new."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path: Path | None = None
        self.file: BinaryIO | None = None
        self.rest = b""

    def close(self) -> None:
        """Close the file that is being followed."""
        if self.file is not None:
            self.file.close()

    def records(self) -> Iterator[Mapping[str, object]]:
        """Yield the new records; a line that is no JSON object is left out (`kars audit verify` judges it)."""
        yield from self.drain()
        newest = max(self.directory.glob("*.jsonl"), default=None)
        if newest is not None and newest != self.path:
            self.close()
            self.path, self.file, self.rest = newest, newest.open("rb"), b""
            yield from self.drain()

    def drain(self) -> Iterator[Mapping[str, object]]:
        """Read the current file to its end."""
        while self.file is not None and (chunk := self.file.read(READ_BYTES)):
            *lines, self.rest = (self.rest + chunk).split(b"\n")
            for line in lines:
                record = decode(line)
                if record is not None:
                    yield record


def decode(line: bytes) -> Mapping[str, object] | None:
    """Decode one line."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def line(record: Mapping[str, object], *, colour: bool) -> str:
    """Lay out one record: time, decision, status, action, tokens or bytes, milliseconds, the rule or how it ended."""
    inner = record.get("call")
    call: Mapping[str, object] = inner if isinstance(inner, dict) else {}
    allowed = record.get("decision") == "allow"
    status = number(call, "status")
    paint = RED if not allowed else GREEN if 0 < status < 400 else YELLOW
    clock = str(record.get("ts", ""))[11:19] or "--:--:--"
    took = f"{number(call, 'latency_us') / 1000:.1f} ms"
    action = str(record.get("action", "?"))
    amount = moved(call) if action.startswith("egress:") else tokens(call)
    why = str(call.get("rule") or call.get("end") or "")
    verdict = "allow" if allowed else "deny"
    text = f"{clock}  {verdict:<5} {status or '---':>3}  {action:<40} {amount:>16} {took:>11}  {why}".rstrip()
    # An action holds what the agent named, and that must not steer the terminal.
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return f"{paint}{text}{OFF}" if colour else text


def tokens(call: Mapping[str, object]) -> str:
    """Write the tokens of a model call, input and output."""
    about = "~" if call.get("estimated") else ""
    return f"{about}{number(call, 'input_tokens')}+{number(call, 'output_tokens')} tokens"


def moved(call: Mapping[str, object]) -> str:
    """Write the bytes of a connection, sent and received."""
    return f"{size(number(call, 'sent_bytes'))}+{size(number(call, 'received_bytes'))} bytes"


def size(value: int) -> str:
    """Write a number of bytes in at most four figures and a unit."""
    for unit in ("", "k", "M", "G"):
        if value < 10_000:
            return f"{value}{unit}"
        value //= 1000
    return f"{value}T"


def number(record: Mapping[str, object], name: str) -> int:
    """Read a whole number, 0 when absent."""
    value = record.get(name)
    return value if isinstance(value, int) else 0
