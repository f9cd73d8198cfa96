"""The key set of a token issuer, fetched so that an issuer's URL cannot turn the controller against its own network.

Anyone who may write an McpServer picks the URL. So: https only, no redirects, every address that a name resolves to has
to be global (or in a network that the controller was told of), the checked address is the dialled one, the whole takes
seconds, and answers are small.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kars.model.addresses import embedded, read_address

# For the discovery document and the key set together: two requests of an issuer that is there.
DEADLINE = 10.0
# A discovery document is some 2 KiB, a key set of ten RSA keys 10 KiB.
MAX_BYTES = 256 * 1024
# Issuers publish the keys of two or three rotations.
MAX_KEYS = 64
# Members of a JWK that are no public knowledge (RFC 7518, sections 6.2.2, 6.3.2 and 6.4.1).
SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# Networks whose addresses are IPv4 addresses in other words: mapped (RFC 4291 §2.5.5.2), NAT64 (RFC 6052 §2.1).
CARRIERS = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))
DISCOVERY = "/.well-known/openid-configuration"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Class = Literal["dns", "address", "tls", "timeout", "connect", "http_status", "invalid_jwks_format", "invalid_url"]


class Failed(Exception):
    """A key set that could not be had; `kind` is a closed list, for conditions and metrics."""

    def __init__(self, kind: Class, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Refused(OSError):
    """An address that is not dialled."""


def reachable(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address, and any that it carries, may be dialled: global, or in a network that was allowed."""
    found: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return permitted(found, networks)
    carried = tuple(map(ipaddress.IPv4Address, embedded(int(found))))
    # What is mapped or translated is the address that it carries; of other forms, the way to it must be global, too.
    outer = () if any(found in network for network in CARRIERS) else (found,)
    return all(permitted(one, networks) for one in (*outer, *carried))


def permitted(address: Address, networks: tuple[Network, ...]) -> bool:
    """Whether one address is global, or in a network that was allowed."""
    if any(address in network for network in networks if network.version == address.version):
        return True
    return address.is_global and not (address.is_multicast or address.is_reserved)


class Guarded(AbstractResolver):
    """Resolves names as the system does, and refuses one that leads anywhere it should not."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self.networks = networks

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return every address of a name; `Refused` when one of them is not to be dialled."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        results: list[ResolveResult] = []
        for kind, _, protocol, _, where in found:
            address = str(where[0])
            if not reachable(address, self.networks):
                raise Refused(f"{host} resolves to an address that is not global")
            numeric = socket.AI_NUMERICHOST
            results.append(
                ResolveResult(hostname=host, host=address, port=port, family=kind, proto=protocol, flags=numeric)
            )
        return results

    async def close(self) -> None:
        """Nothing to close."""


class Issuers:
    """Fetches key sets.

    `networks` may be dialled although they are not global; `tls` is the trust store, the system's when None.
    """

    def __init__(
        self,
        *,
        networks: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
        resolver: Callable[[tuple[Network, ...]], AbstractResolver] = Guarded,
    ) -> None:
        self.networks = tuple(ipaddress.ip_network(one) for one in networks)
        self.tls = tls
        self.resolver = resolver

    async def fetch(self, issuer: str) -> bytes:
        """Return the public keys of an issuer as a compact JWK Set (RFC 7517, section 5); `Failed` otherwise."""
        connector = aiohttp.TCPConnector(
            resolver=self.resolver(self.networks), ssl=self.tls or ssl.create_default_context(), force_close=True
        )
        # No cookies, no proxies and no .netrc from the environment.
        session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
        )
        try:
            async with asyncio.timeout(DEADLINE), session:
                found = document(await self.get(session, issuer.rstrip("/") + DISCOVERY), "the discovery document")
                if str(found.get("issuer", "")).rstrip("/") != issuer.rstrip("/"):
                    # OpenID Connect Discovery 1.0, section 4.3.
                    raise Failed("invalid_jwks_format", "the discovery document is another issuer's")
                address = found.get("jwks_uri")
                if not isinstance(address, str):
                    raise Failed("invalid_jwks_format", "the discovery document has no jwks_uri")
                return key_set(await self.get(session, address))
        except TimeoutError:
            raise Failed("timeout", f"no answer within {DEADLINE:g} s") from None

    async def get(self, session: aiohttp.ClientSession, url: str) -> bytes:
        """Return the body of a small answer."""
        self.check(url)
        try:
            async with session.get(
                url, allow_redirects=False, headers={"Accept": "application/json", "Accept-Encoding": "identity"}
            ) as answer:
                if answer.status != 200:
                    raise Failed("http_status", f"the answer is HTTP {answer.status}")
                body = bytearray()
                async for chunk in answer.content.iter_chunked(16_384):
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise Failed("invalid_jwks_format", f"more than {MAX_BYTES} bytes")
                return bytes(body)
        except aiohttp.ClientError as error:
            raise failure(error) from None

    def check(self, url: str) -> None:
        """Refuse a URL that is not https to a host by name or to an address that may be dialled."""
        try:
            parts = urlsplit(url)
            host, _ = URL(url).raw_host, parts.port  # the host as it will be dialled
        except ValueError as error:
            raise Failed("invalid_url", "no URL") from error
        if parts.scheme != "https" or not host or "@" in parts.netloc:
            raise Failed("invalid_url", "not an https URL without user information")
        try:
            literal = read_address(host.partition("%")[0])
        except ValueError:
            # Such as 127.1, which the client takes for an address, so that no resolver of ours is asked about it.
            raise Failed("address", "a number that is no address") from None
        # A name is for the resolver to look at.
        if literal is not None and not reachable(str(literal), self.networks):
            raise Failed("address", "an address that is not global")


def failure(error: aiohttp.ClientError) -> Failed:
    """Class a failure; texts name no address, which would tell what the controller can reach."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        cause = error.os_error
        if isinstance(cause, Refused):
            return Failed("address", str(cause))
        return Failed("dns", "the name does not resolve")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return Failed("tls", "the certificate or the handshake is not accepted")
    if isinstance(error, aiohttp.ServerTimeoutError):
        return Failed("timeout", "no answer in time")
    return Failed("connect", f"the connection failed ({type(error).__name__})")


def document(body: bytes, what: str) -> dict[str, Any]:
    """Decode a JSON object."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failed("invalid_jwks_format", f"{what} is no JSON object") from error


def key_set(body: bytes) -> bytes:
    """Read a JWK Set and write it again, compact; one with anything secret in it is refused, not published."""
    keys = document(body, "the key set").get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise Failed("invalid_jwks_format", "the key set has no list of keys")
    if len(keys) > MAX_KEYS:
        raise Failed("invalid_jwks_format", f"the key set has {len(keys)} keys, and at most {MAX_KEYS} are taken")
    if any(SECRET_MEMBERS & key.keys() for key in keys):
        raise Failed("invalid_jwks_format", "the key set has private or symmetric keys")
    return msgspec.json.encode({"keys": keys})
