"""The wire: requests over the official client's REST layer, bounded in size and time.

Imported by `client` when it connects. Lost connections, time that ran out and certificates that do not verify are
`Busy`, with a `reason` each; what the server answers is handed on as it came.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import os
import platform
import socket
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from kubernetes.aio.client.rest import RESTClientObject
from yarl import URL

from kars.errors import KarsError, SettingsError
from kars.kube import account
from kars.kube.errors import ApiError, Busy
from kars.kube.request import Request

log = logging.getLogger("kars.kube")

# Seconds to a connection; an API server that is there accepts at once.
CONNECT = 10.0
# Seconds without a sign from a peer whose machine went away until the kernel gives a connection up.
DEAD_AFTER_MS = 30_000
# Connections to the API server; each watch has one.
CONNECTIONS = 100
# Seconds that connections may take to close before the client is gone without them.
GOODBYE = 1.0
LOOKS = 100
# What is read ahead of the decoder on a connection; a watch's line may be longer and is collected above.
READ_AHEAD = 1 << 16
# Seconds between two reloads of the account: a revoked credential must not mean a plugin run per request.
RELOAD = 5.0

LOST = "ConnectionLost"
UNREACHABLE = "Unreachable"
TIMEOUT = "Timeout"
TOO_LARGE = "ResponseTooLarge"


class Rest(RESTClientObject):
    """The official REST layer, with sockets that notice a peer that vanished, and that are gone once it is closed."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        self.sockets: WeakSet[socket.socket] = WeakSet()
        return aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self.ssl_context, socket_factory=self.open_socket)

    def session(self) -> aiohttp.ClientSession:
        """Return the pool, opened on first use."""
        if self.pool_manager is None:
            self.pool_manager = self._create_pool_manager()
        return self.pool_manager

    def open_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """Make a socket that is closed when its peer's machine or the path to it is gone."""
        family, kind, protocol, *_ = info
        made = socket.socket(family, kind, protocol)
        self.sockets.add(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if platform.system() == "Linux":
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)
        return made

    async def close(self) -> None:
        """Close every connection, also those of watches that were just left and still say goodbye (TLS)."""
        if self.pool_manager is None:
            return
        await super().close()
        for _ in range(LOOKS):
            if not any(one.fileno() >= 0 for one in self.sockets):
                return
            await asyncio.sleep(GOODBYE / LOOKS)


class Guarded(aiohttp.BytesPayload):
    """A body that is written, and its head with it, only while `may` says so.

    A process can be stopped, and found out of date when it goes on, at any point; after this one nothing waits.
    """

    def __init__(self, body: bytes, may: Callable[[], bool]) -> None:
        super().__init__(body)
        self.may = may

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write it, or fail."""
        if not self.may():
            raise ConnectionAbortedError("not sent")
        await super().write_with_length(writer, content_length)


def body_of(request: Request) -> bytes | Guarded | None:
    """Return what is sent of a request beside its head."""
    return request.body if request.may is None else Guarded(request.body or b"", request.may)


class Transport:
    """Sends requests as one account."""

    def __init__(self, found: account.Account, *, kubeconfig: str, context: str) -> None:
        self.chosen = {"kubeconfig": kubeconfig, "context": context}
        self.generation = 0
        self.reloaded = -RELOAD
        self.lock = asyncio.Lock()
        self.retired: Rest | None = None
        self.agent = f"kars/{metadata.version('kars')}"
        self.use(found)

    @classmethod
    async def open(cls, *, kubeconfig: str, context: str) -> Transport:
        """Find the account and make ready; nothing is sent."""
        return cls(await account.find(kubeconfig=kubeconfig, context=context), kubeconfig=kubeconfig, context=context)

    def use(self, found: account.Account) -> None:
        """Go on as this account."""
        configuration = found.configuration
        configuration.proxy = configuration.proxy or proxy_of(found.server)
        configuration.client_session_kwargs = {
            # Proxies are looked up once, above; the session would look for them and for ~/.netrc on every request.
            "trust_env": False,
            "cookie_jar": aiohttp.DummyCookieJar(),
            "read_bufsize": READ_AHEAD,
            "auto_decompress": False,
        }
        try:
            self.rest = Rest(configuration)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{found.described}: its certificates cannot be used: {error}") from None
        self.account = found

    def acting(self, token: str) -> Transport:
        """Make a transport to the same server for another account's token; it is never read again."""
        configuration = copy.copy(self.account.configuration)
        configuration.api_key = {"BearerToken": f"Bearer {token}"}
        # The server would take a certificate over the token.
        configuration.cert_file = configuration.key_file = None
        made = copy.copy(self)
        made.retired, made.lock = None, asyncio.Lock()
        made.reloaded = math.inf  # a refused token stays refused
        made.use(account.Account(configuration, f"a token by way of {self.account.described}"))
        return made

    async def close(self) -> None:
        """Close every connection."""
        for rest in (self.rest, self.retired):
            if rest is not None:
                await rest.close()

    async def reload(self, generation: int) -> bool:
        """Read the account again after the server refused it; whether there is a point in asking once more."""
        async with self.lock:
            if generation != self.generation:
                return True
            if time.monotonic() - self.reloaded < RELOAD:
                return False
            self.reloaded = time.monotonic()
            before = self.rest
            try:
                self.use(await account.find(**self.chosen))
            except KarsError as error:
                # A file that is being replaced, a plugin that fails: what was refused stays refused for now.
                log.warning("kube.account error=%s", error)
                return False
            self.generation += 1
            # Watches go on over the connections that they have; those of the reload before are given up.
            if self.retired is not None:
                await self.retired.close()
            self.retired = before
            return True

    @asynccontextmanager
    async def send(
        self,
        request: Request,
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the wire's own deadlines
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and wait for the head of its answer; errors of the wire are `Busy` here and while reading."""
        headers = {
            "Accept": "application/json",
            # A compressed answer could be larger than it says, and costs more time than a cluster's network takes.
            "Accept-Encoding": "identity",
            "User-Agent": self.agent,
        }
        if authorization := await self.account.authorization():
            headers["Authorization"] = authorization
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        more: dict[str, Any] = {}
        if self.rest.configuration.tls_server_name:
            more["server_hostname"] = self.rest.configuration.tls_server_name
        if self.rest.proxy:
            more["proxy"] = self.rest.proxy
            more["proxy_headers"] = self.rest.proxy_headers
        try:
            async with self.rest.session().request(
                request.method,
                URL(self.account.server + request.target, encoded=True),
                data=body_of(request),
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                **more,
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self.broken(error) from None

    def broken(self, error: Exception) -> Busy:
        """Say what happened to a connection."""
        server = self.account.server
        where = f"{server} ({self.account.described})"
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
            hint = "its certificate must be of the certificate-authority that the account names, and name the server"
            return Busy(f"{where}: no TLS connection: {cause(error)}", reason=UNREACHABLE, hint=hint)
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            hint = "is the cluster up? --kubeconfig FILE and --context NAME choose another"
            return Busy(f"{where} cannot be reached: {cause(error)}", reason=UNREACHABLE, hint=hint)
        if isinstance(error, TimeoutError):
            return Busy(f"{where} did not answer in time", reason=TIMEOUT)
        return Busy(f"{server}: the connection broke: {type(error).__name__}", reason=LOST)

    async def exchange(self, request: Request, *, seconds: float) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request and read its whole answer: status, headers, body of at most the request's `limit` bytes."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT)
        async with self.send(request, timeout=timeout) as response:
            return response.status, response.headers, await drain(response, request.limit)

    @asynccontextmanager
    async def stream(
        self, request: Request, *, seconds: float, silent: float
    ) -> AsyncIterator[tuple[int, aiohttp.ClientResponse]]:
        """Open a watch that may last `seconds`; a read fails with TimeoutError after `silent` seconds of nothing."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT, sock_read=silent)
        async with self.send(request, timeout=timeout) as response:
            yield response.status, response


def cause(error: Exception) -> str:
    """Say why there is no connection, in the system's words, without the address, which is told beside."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        found: BaseException = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        found = error.os_error
    else:
        return "no connection in time"
    if isinstance(found, ssl.SSLCertVerificationError):
        return found.verify_message
    if isinstance(found, ssl.SSLError):
        return found.reason or type(found).__name__
    if isinstance(found, socket.gaierror):
        return "its name does not resolve"
    return os.strerror(found.errno) if isinstance(found, OSError) and found.errno else str(found)


async def drain(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body; `ApiError` with reason ResponseTooLarge past the limit."""
    if response.content_length is not None and response.content_length <= limit:
        return await response.read()
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limit:
            response.close()
            raise ApiError(f"an answer has more than {limit} bytes", status=response.status, reason=TOO_LARGE)
        chunks.append(chunk)
    return b"".join(chunks)


def proxy_of(server: str) -> str | None:
    """Return the proxy that the environment names for this server; the official client asks anew on every call."""
    address = urlsplit(server)
    if not address.hostname or urllib.request.proxy_bypass(address.hostname):
        return None
    return urllib.request.getproxies().get(address.scheme)
