"""Lines out of chunks of bytes, as a watch sends its events; never more than a bound is held."""

from __future__ import annotations

from collections.abc import Iterator


class TooLong(ValueError):
    """A line is longer than the bound."""


class Lines:
    """Splits what is fed at line feeds; an incomplete line waits for its rest. `limit` bounds a line in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.parts: list[bytes] = []
        self.size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that are complete now, without their ends; empty ones are left out. Go through all of it."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self.hold(end)
            line = b"".join(self.parts) if len(self.parts) > 1 else end
            self.parts.clear()
            self.size = 0
            if line := line.removesuffix(b"\r"):
                yield line
        if rest:
            self.hold(rest)

    def hold(self, part: bytes) -> None:
        """Keep a part of a line; `TooLong` past the bound."""
        self.size += len(part)
        if self.size > self.limit:
            raise TooLong(f"a line has more than {self.limit} bytes")
        self.parts.append(part)

    def incomplete(self) -> bool:
        """Say whether a line was begun and not ended."""
        return self.size > 0
