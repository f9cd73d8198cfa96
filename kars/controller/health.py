"""`/healthz`, `/readyz` and `/metrics`: a small HTTP/1.1 server on the loop that the controller runs on.

That it answers at all shows that the loop turns. One request a connection: probes and scrapes want no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import NamedTuple

from kars.errors import UnavailableError

log = logging.getLogger(__name__)

# A probe's head is some 200 bytes.
LONGEST_HEAD = 8192
# Seconds for a request's head and for writing the answer.
DEADLINE = 5.0
# Connections at once: probes of a kubelet, a few scrapers; more are closed at once.
MOST_CONNECTIONS = 64

TEXT = "text/plain; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Page(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    content_type: str = TEXT


class Health:
    """Serves pages by path; `problems` says what is wrong now, empty when nothing is."""

    def __init__(
        self, *, alive: Callable[[], list[str]], ready: Callable[[], list[str]], metrics: Callable[[], bytes]
    ) -> None:
        self.alive = alive
        self.ready = ready
        self.metrics = metrics
        self.server: asyncio.Server | None = None
        self.connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that is listened on, for those who asked for any (0)."""
        assert self.server is not None  # noqa: S101 - asked before `start`
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def start(self, host: str, port: int) -> None:
        """Listen; `UnavailableError` when that address cannot be had."""
        try:
            self.server = await asyncio.start_server(self.accept, host or None, port, limit=LONGEST_HEAD)
        except OSError as error:
            raise UnavailableError(
                f"CONTROLLER_METRICS_ADDR: cannot listen on {host}:{port} ({error.strerror})",
                hint="set another address, or off",
            ) from error

    async def stop(self) -> None:
        """Close everything."""
        if self.server is not None:
            self.server.close()
        for task in tuple(self.connections):
            task.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        if task is None or len(self.connections) >= MOST_CONNECTIONS:
            writer.close()
            return
        self.connections.add(task)
        try:
            async with asyncio.timeout(DEADLINE):
                await self.serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # whoever asked is gone, or too slow, or we are ending
        finally:
            self.connections.discard(task)
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            page, method = Page(400, b"no request\n"), "GET"
        else:
            words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            method = words[0]
            page = self.answer(words)
        body = b"" if method == "HEAD" else page.body
        writer.write(
            f"HTTP/1.1 {page.status} {PHRASES[page.status]}\r\nContent-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        with contextlib.suppress(OSError):
            await writer.drain()

    def answer(self, words: list[str]) -> Page:
        """Return the page that a request line asks for."""
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Page(400, b"no request\n")
        if words[0] not in {"GET", "HEAD"}:
            return Page(405, b"GET only\n")
        path = words[1].partition("?")[0]
        if path in {"/healthz", "/livez"}:
            return said(self.alive())
        if path == "/readyz":
            return said(self.ready())
        if path == "/metrics":
            return Page(200, self.metrics(), EXPOSITION)
        return Page(404, b"there are /healthz, /livez, /readyz and /metrics\n")


def said(problems: list[str]) -> Page:
    """Return ok, or what is wrong."""
    return Page(503, "".join(f"{one}\n" for one in problems).encode()) if problems else Page(200, b"ok")
