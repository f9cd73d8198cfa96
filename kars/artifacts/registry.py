"""The OCI distribution API, as far as reading goes: manifests, blobs, referrers.

Every byte is bounded before it is read and hashed before it is believed. Nothing of a body that was not asked for by
its digest enters an error's text, because the author of a resource chooses which host is asked. A registry may be on a
private network, but neither it nor where it leads may be a metadata service or another address of a link.

https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import re
import socket
from collections import OrderedDict
from typing import Any, Protocol

import msgspec
from aiohttp import (
    ClientConnectorDNSError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    ThreadedResolver,
)
from aiohttp.abc import ResolveResult
from yarl import URL

from kars.artifacts.azure import Azure
from kars.artifacts.references import DIGEST, DOCKER_HUB, Repository
from kars.artifacts.refused import Refused
from kars.artifacts.tokens import Basic, Challenge, Token, challenge
from kars.model.addresses import is_barred

# The distribution specification has registries take manifests up to 4 MiB, so clients meet that much.
MANIFEST_BYTES = 4 << 20
# An answer of a token service: a JWT of a few KiB and some words.
TOKEN_BYTES = 64 << 10
TOKEN_LENGTH = 32 << 10
# A token without expires_in is good for 60 s (the token specification); longer ones are asked for anew after an hour.
TOKEN_SECONDS = 60
LONGEST_TOKEN_SECONDS = 3600
# Repositories whose tokens are remembered.
TOKENS = 256
# From a registry to its object store, and once more for a region.
REDIRECTS = 3
# Pages of referrers: a registry gives 50 to 1000 a page.
PAGES = 4
# Reading a manifest of 4 MiB at 200 KiB/s, and what people wait for.
TOTAL_SECONDS = 30
CONNECT_SECONDS = 5
READ_SECONDS = 10
# Once more after a fault, at once: a pooled connection that the registry closed is the usual one.
ATTEMPTS = 2
CONNECTIONS_PER_HOST = 8

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX))
NEXT = re.compile(r'<([^>]{1,2048})>\s*;\s*rel="?next"?')
NEVER_ASKED = "a link-local, metadata, multicast or unspecified address, which is never asked"
ASKS_ELSEWHERE = frozenset({301, 302, 303, 307, 308})


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """What a manifest or an index says of something that is stored."""

    digest: str
    size: int = 0
    media_type: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """An image manifest or an index; members that nobody here needs are passed over."""

    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None


class Body(msgspec.Struct, frozen=True):
    """Bytes and their digest."""

    data: bytes
    digest: str
    media_type: str = ""


def digest_of(data: bytes) -> str:
    """Return sha256:<hex>."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def manifest_of(data: bytes) -> Manifest:
    """Decode a manifest; `Refused` with InvalidRef when it is none."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refused("InvalidRef", "what the registry holds there is not a manifest") from None


class Wallet(Protocol):
    """Credentials by host: a mapping, or a file that is read again when it changes."""

    def get(self, host: str, /) -> Basic | None:
        """Return the credentials for a host, None where there are none."""


class Barred(OSError):
    """An address that is not dialled."""


class Guarded(ThreadedResolver):
    """Resolves names as the system does, and refuses one that leads to an address that is never dialled."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return every address of a name; `Barred` when one of them is not to be dialled."""
        found = await super().resolve(host, port, family)
        if any(is_barred(one["host"]) for one in found):
            raise Barred(host)
        return found


class Registry:
    """Asks registries. One per process: it holds connections and tokens."""

    def __init__(
        self,
        *,
        insecure_hosts: frozenset[str] = frozenset(),
        credentials: Wallet | None = None,
        azure: Azure | None = None,
    ) -> None:
        self.insecure_hosts = insecure_hosts
        self.credentials: Wallet = {} if credentials is None else credentials
        self.azure = azure
        self.tokens: OrderedDict[Repository, Token] = OrderedDict()
        self.session: ClientSession | None = None

    async def manifest(self, place: Repository, reference: str) -> Body:
        """Return a manifest's bytes by digest or tag; by digest they are compared with it."""
        answer = await self.get(place, f"manifests/{reference}", accept=ACCEPT, limit=MANIFEST_BYTES)
        return check(answer, reference if DIGEST.match(reference) else "", place)

    async def blob(self, place: Repository, digest: str, limit: int) -> bytes:
        """Return a blob's bytes by digest, at most so many."""
        if not DIGEST.match(digest):
            raise Refused("InvalidRef", f"{place}: a manifest names a blob by something else than sha256")
        answer = await self.get(place, f"blobs/{digest}", accept="*/*", limit=limit)
        return check(answer, digest, place).data

    async def referrers(self, place: Repository, digest: str) -> list[Descriptor]:
        """Return what refers to a manifest: by the API, by the tag sha256-<hex> where a registry has none."""
        found: list[Descriptor] = []
        path = f"referrers/{digest}"
        for _ in range(PAGES):
            try:
                answer = await self.get(place, path, accept=INDEX, limit=MANIFEST_BYTES)
            except Refused as refused:
                if refused.reason not in {"NotFound", "InvalidRef"}:
                    raise
                return await self.tagged_referrers(place, digest)
            found.extend(manifest_of(answer.data).manifests)
            path = answer.next_path
            if not path:
                break
        return found

    async def tagged_referrers(self, place: Repository, digest: str) -> list[Descriptor]:
        """Return what the tag sha256-<hex> lists."""
        try:
            listed = await self.manifest(place, digest.replace(":", "-"))
        except Refused as refused:
            if refused.reason == "NotFound":
                return []
            raise
        return list(manifest_of(listed.data).manifests)

    async def close(self) -> None:
        """Close every connection."""
        if self.session is not None:
            await self.session.close()
            self.session = None

    async def get(self, place: Repository, path: str, *, accept: str, limit: int) -> Answer:
        """Ask once, with a token if the registry wants one; `Refused` says why there is no answer."""
        url = self.url(place, path)
        authorization = self.remembered(place)
        for attempt in range(2):
            answer = await self.send(url, accept=accept, limit=limit, authorization=authorization, place=place)
            if answer.status != 401 or attempt:
                break
            self.tokens.pop(place, None)
            wanted = challenge(answer.challenge)
            if wanted is None:
                break
            authorization = await self.authorize(place, wanted)
        if answer.status != 200:
            raise refusal(answer.status, place, path)
        return answer

    def url(self, place: Repository, path: str) -> URL:
        """Return the URL of a path of a repository."""
        scheme = "http" if self.insecure(place.host) else "https"
        host = "registry-1.docker.io" if place.host == DOCKER_HUB else place.host
        return URL(f"{scheme}://{host}/v2/{place.name}/{path}", encoded=True)

    def insecure(self, host: str) -> bool:
        """Whether a host may be asked without TLS."""
        return host in self.insecure_hosts

    async def send(self, url: URL, *, accept: str, limit: int, place: Repository, authorization: str = "") -> Answer:
        """Send a request and follow where it leads, with the credentials on the first hop only."""
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        for hop in range(REDIRECTS + 1):
            if authorization and not hop:
                headers["Authorization"] = authorization
            else:
                headers.pop("Authorization", None)
            answer = await self.once(url, headers=headers, limit=limit, place=place)
            if answer.status not in ASKS_ELSEWHERE:
                return answer
            url = self.redirected(url, answer.location, place)
        raise Refused("Transient", f"{place}: more than {REDIRECTS} redirects")

    def redirected(self, url: URL, location: str, place: Repository, *, reason: str = "InvalidRef") -> URL:
        """Return where a registry sends us: to https; one that is asked without TLS to itself, on loopback anywhere."""
        try:
            target = url.join(URL(location, encoded=True))
        except ValueError:
            target = URL()
        here, host = self.url(place, ""), target.host or ""
        secure = target.scheme == "https" and host != ""
        near = target.scheme == here.scheme == "http" and (
            (host, target.port) == (here.host, here.port) or (loopback(host) and loopback(here.host or ""))
        )
        if not (secure or near) or target.user is not None or target.password is not None:
            raise Refused(reason, f"{place}: the registry leads to something else than https")
        if is_barred(host):
            raise Refused(reason, f"{place}: the registry leads to {host}: {NEVER_ASKED}")
        return target

    async def post(self, url: URL, form: dict[str, str], place: Repository) -> Answer:
        """Send a form to a token service, by TLS and to nobody else."""
        if url.scheme != "https":
            raise Refused("Unauthorized", f"{place}: {url.host} is not asked for a token without TLS")
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        return await self.once(url, headers=headers, limit=TOKEN_BYTES, place=place, form=form)

    async def once(
        self,
        url: URL,
        *,
        headers: dict[str, str],
        limit: int,
        place: Repository,
        form: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request, and once more when the connection fails."""
        if is_barred(url.host or ""):
            raise Refused("InvalidRef", f"{place}: {url.host} is {NEVER_ASKED}")
        method = "GET" if form is None else "POST"
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                async with self.opened().request(
                    method, url, headers=headers, data=form, allow_redirects=False
                ) as response:
                    if response.status >= 500 and not last:
                        continue
                    return await read(response, limit=limit, place=place)
            except (ClientError, TimeoutError, OSError, ValueError) as error:
                if isinstance(error, ClientConnectorDNSError) and isinstance(error.os_error, Barred):
                    raise Refused("InvalidRef", f"{place}: {url.host} leads to {NEVER_ASKED}") from None
                if last:
                    name = type(error).__name__
                    raise Refused("Transient", f"{place}: {url.host} did not answer ({name})") from None
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    def opened(self) -> ClientSession:
        """Return the session, made in the loop that uses it."""
        if self.session is None:
            self.session = ClientSession(
                timeout=ClientTimeout(total=TOTAL_SECONDS, connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
                connector=TCPConnector(limit_per_host=CONNECTIONS_PER_HOST, resolver=Guarded()),
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,  # what is hashed is what was sent, and nothing grows after it was counted
                trust_env=False,
            )
        return self.session

    def remembered(self, place: Repository) -> str:
        """Return the header that worked last, as long as it is good."""
        token = self.tokens.get(place)
        if token is not None and token.until > asyncio.get_running_loop().time():
            return token.value
        self.tokens.pop(place, None)
        return ""

    def remember(self, place: Repository, value: str, seconds: float) -> str:
        """Keep a header for so long."""
        self.tokens[place] = Token(value, asyncio.get_running_loop().time() + seconds)
        self.tokens.move_to_end(place)
        while len(self.tokens) > TOKENS:
            self.tokens.popitem(last=False)
        return value

    async def authorize(self, place: Repository, wanted: Challenge) -> str:
        """Return the header that answers a challenge."""
        basic = self.credentials.get(place.host)
        if wanted.scheme == "basic":
            if basic is None:
                raise Refused("Unauthorized", f"{place}: the registry wants a user and a password")
            return self.remember(place, basic.header(), LONGEST_TOKEN_SECONDS)
        if basic is None and self.azure is not None:
            basic = await self.azure.credentials(self, place)
        return await self.bearer(place, wanted, basic)

    async def bearer(self, place: Repository, wanted: Challenge, basic: Basic | None) -> str:
        """Fetch a token for pulling from this repository, whatever scope the challenge asks for."""
        realm = self.redirected(self.url(place, ""), wanted.realm, place, reason="Unauthorized")
        query = {"scope": f"repository:{place.name}:pull"}
        if wanted.service:
            query["service"] = wanted.service
        answer = await self.send(
            realm.update_query(query),
            accept="application/json",
            limit=TOKEN_BYTES,
            authorization=basic.header() if basic else "",
            place=place,
        )
        if answer.status != 200:
            raise refusal(answer.status, place, "token", denied=answer.status < 500 and answer.status != 429)
        value, seconds = token_of(answer.data, place)
        return self.remember(place, f"Bearer {value}", seconds)


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    data: bytes = b""
    media_type: str = ""
    location: str = ""
    challenge: str = ""
    next_path: str = ""


async def read(response: ClientResponse, *, limit: int, place: Repository) -> Answer:
    """Read an answer, at most so many bytes; of a refusal nothing but its headers."""
    headers = response.headers
    if response.status != 200:
        return Answer(
            response.status,
            location=headers.get("Location", ""),
            challenge=headers.get("WWW-Authenticate", ""),
        )
    if (response.content_length or 0) > limit:
        raise Refused("CanonicalFormViolation", f"{place}: {response.content_length} bytes; at most {limit} are read")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise Refused("InvalidRef", f"{place}: the answer is encoded, which was not asked for")
    data = bytearray()
    async for chunk in response.content.iter_chunked(64 << 10):
        data += chunk
        if len(data) > limit:
            raise Refused("CanonicalFormViolation", f"{place}: more than {limit} bytes")
    return Answer(200, bytes(data), headers.get("Content-Type", ""), next_path=next_page(headers.get("Link", "")))


def next_page(link: str) -> str:
    """Return the path of the next page of referrers below the repository; empty where there is none."""
    found = NEXT.search(link)
    if found is None:
        return ""
    _, middle, rest = found[1].rpartition("/referrers/")
    return f"referrers/{rest}" if middle and re.fullmatch(r"[!-~]+", rest) and "#" not in rest else ""


def check(answer: Answer, digest: str, place: Repository) -> Body:
    """Compare bytes with the digest that they were asked for by."""
    found = digest_of(answer.data)
    if digest and found != digest:
        raise Refused("DigestMismatch", f"{place}: asked for {digest}, got bytes whose digest is {found}")
    return Body(answer.data, found, answer.media_type)


def refusal(status: int, place: Repository, path: str, *, denied: bool = False) -> Refused:
    """Say what a status means."""
    what = f"{place}: the registry answered {status} to {path.partition('?')[0]}"
    if denied or status in {401, 403}:
        return Refused("Unauthorized", what, hint="give the controller credentials for the registry (docs/signing.md)")
    if status in {404, 410}:
        return Refused("NotFound", what, hint="push it there, or correct the reference")
    if status == 429 or status >= 500:
        return Refused("Transient", what)
    return Refused("InvalidRef", what)


def token_of(data: bytes, place: Repository) -> tuple[str, float]:
    """Read a token and for how many seconds it is good."""
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refused("Unauthorized", f"{place}: the token service answered with something else than JSON") from None
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or len(value) > TOKEN_LENGTH or not re.fullmatch(r"[!-~]+", value):
        raise Refused("Unauthorized", f"{place}: the token service gave no token")
    seconds = document.get("expires_in", TOKEN_SECONDS)
    if not isinstance(seconds, int) or seconds < TOKEN_SECONDS:
        seconds = TOKEN_SECONDS
    # A token is not used in its last tenth, so that it does not end on its way.
    return value, min(seconds, LONGEST_TOKEN_SECONDS) * 0.9


def loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
