r"""What the routers say is in force: `GET /internal/policy-status` of each pod, in parallel, with deadlines.

Whoever answers at a pod's address may not be its router: the agent shares the pod's network and can take a port that
nobody holds, and an address that is given up goes to another pod. So the token that both hold is never sent. The
question bears a nonce and a code over it, and only an answer with a code over that nonce and every byte counts.

    Authorization: Kars <nonce> <code of "ask\n" nonce>
    x-kars-proof: <code of "answer\n" nonce "\n" body>

The codes are HMAC-SHA256 (RFC 2104) under the token, in hex; `router_core/src/proxy/local/proof.rs` is the other side.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from kars.controller.held import Pod
from kars.desired import names
from kars.kube.types import Key, Object

if TYPE_CHECKING:
    import aiohttp

ROUTER_PORT = 8443
PATH = "/internal/policy-status"
# Questions under way at once: enough to hide a slow pod, few enough for one process's sockets.
AT_ONCE = 64
# Seconds from connecting to the last byte (spec 6.3).
DEADLINE = 5.0
# Largest answer that is read; a router has a handful of entries.
LONGEST_ANSWER = 1 << 20
# Entries of an answer that are looked at, and the longest error text of a router that is passed on.
MOST_ENTRIES = 64
LONGEST_ERROR = 256
# How long an answer is shared: many policies of one sandbox look within the same second.
SHARED = 1.0
SCHEMA_VERSION = 1
# Bytes of a nonce: nobody meets one twice.
NONCE_BYTES = 32
PROOF = "x-kars-proof"


class Entry(msgspec.Struct, frozen=True):
    """One kind of bundle in one router."""

    kind: str
    digest: str | None = None
    last_error: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a router answers; members that are not here are passed over."""

    schema_version: int
    entries: tuple[Entry, ...] = ()


class Heard(msgspec.Struct, frozen=True):
    """What one sandbox's routers said, or why they could not be asked; `agrees` needs every ready pod to agree."""

    sandbox: Key
    entries: tuple[tuple[Entry, ...], ...] = ()  # of each pod
    error: str = ""

    def digest(self, kind: str) -> str | None:
        """Return the digest that all pods have in force, None when they differ, have none or could not be asked."""
        if self.error or not self.entries:
            return None
        found = {tuple(entry.digest for entry in pod if entry.kind == kind) for pod in self.entries}
        if len(found) != 1:
            return None
        digests = set(found.pop())
        return digests.pop() if len(digests) == 1 else None

    def last_error(self, kind: str) -> str | None:
        """Return the first error that a pod reports for a kind."""
        for pod in self.entries:
            for entry in pod:
                if entry.kind == kind and entry.last_error:
                    return entry.last_error
        return None

    def agrees(self, kind: str, digest: str) -> bool:
        """Whether every ready pod has this digest in force."""
        return self.digest(kind) == digest


class Unheard(Exception):
    """A router did not answer, or not so that it can be understood; the text may be shown."""


class Echo:
    """Asks routers; answers are shared for a moment, so that many policies of one sandbox ask once."""

    def __init__(
        self,
        *,
        pods: Callable[[Key], tuple[Pod, ...]],
        secret: Callable[[Key], Awaitable[Object | None]],
        counted: Callable[[str], None] = lambda _: None,
        deadline: float = DEADLINE,
        port: int = ROUTER_PORT,
    ) -> None:
        self.pods = pods
        self.secret = secret
        self.counted = counted
        self.deadline = deadline
        self.port = port
        self.slots = asyncio.Semaphore(AT_ONCE)
        self.shared: OrderedDict[Key, tuple[float, asyncio.Task[Heard]]] = OrderedDict()
        self.session: aiohttp.ClientSession | None = None

    async def ask(self, sandboxes: Iterable[Key], *, fresh: bool = False) -> dict[Key, Heard]:
        """Ask every sandbox at once (bounded), each within its deadline; sandboxes are keys of KarsSandboxes.

        An answer may be up to a second old, unless it is to be `fresh`. Dropping this leaves questions running that
        others may share; each ends by its deadline.
        """
        wanted = list(dict.fromkeys(sandboxes))
        tasks = [self.task(sandbox, fresh=fresh) for sandbox in wanted]
        answers = await asyncio.gather(*map(asyncio.shield, tasks))
        return dict(zip(wanted, answers, strict=True))

    def task(self, sandbox: Key, *, fresh: bool) -> asyncio.Task[Heard]:
        """Return the question that is under way or was just answered, or ask it."""
        now = asyncio.get_running_loop().time()
        while self.shared:
            oldest, (at, task) = next(iter(self.shared.items()))
            if now - at <= SHARED or not task.done():
                break
            del self.shared[oldest]
        found = self.shared.get(sandbox)
        if found is not None and not fresh and (now - found[0] <= SHARED or not found[1].done()):
            return found[1]
        made = asyncio.create_task(self.hear(sandbox))
        self.shared[sandbox] = (now, made)
        self.shared.move_to_end(sandbox)
        return made

    async def hear(self, sandbox: Key) -> Heard:
        """Ask the ready pods of one sandbox."""
        pods = [pod for pod in self.pods(sandbox) if pod.ready and pod.ip and not pod.deleting]
        if not pods:
            return Heard(sandbox, error="no pod is ready")
        token = await self.token(sandbox)
        if not token:
            return Heard(sandbox, error=f"there is no Secret {names.ADMIN_TOKEN} yet")
        answers = await asyncio.gather(*(self.ask_pod(pod, token) for pod in pods))
        errors = [
            f"pod {pod.key.name}: {answer}"
            for pod, answer in zip(pods, answers, strict=True)
            if isinstance(answer, Unheard)
        ]
        heard = tuple(answer for answer in answers if not isinstance(answer, Unheard))
        return Heard(sandbox, entries=heard, error=errors[0] if errors else "")

    async def token(self, sandbox: Key) -> str:
        """Return the bearer token of a sandbox's routers; empty when there is none."""
        secret = await self.secret(Key(names.namespace(sandbox.name), names.ADMIN_TOKEN))
        data = (secret or {}).get("data") or {}
        try:
            return base64.b64decode(data.get("token", ""), validate=True).decode("ascii").strip()
        except ValueError:
            return ""

    async def ask_pod(self, pod: Pod, token: str) -> tuple[Entry, ...] | Unheard:
        """Ask one router; what goes wrong is returned, for the others' answers to be heard too."""
        async with self.slots:
            try:
                async with asyncio.timeout(self.deadline):
                    entries = await self.fetch(pod.ip, token)
            except TimeoutError:
                error = Unheard(f"no answer within {self.deadline:g} s")
            except Unheard as caught:
                error = caught
            except OSError as caught:  # aiohttp's connection errors, too
                error = Unheard(unreachable(caught))
            else:
                self.counted("answered")
                return entries
        self.counted("failed")
        return error

    async def fetch(self, address: str, token: str) -> tuple[Entry, ...]:
        """Make the request and read its answer."""
        import aiohttp

        host = f"[{address}]" if ":" in address else address
        nonce = secrets.token_hex(NONCE_BYTES)
        headers = {"Authorization": question(token, nonce), "Accept": "application/json"}
        try:
            async with self.client().get(
                f"http://{host}:{self.port}{PATH}", headers=headers, allow_redirects=False
            ) as response:
                if response.status == 401:
                    raise Unheard("status 401: it has another token, or is of a version that wants the token itself")
                if response.status != 200:
                    raise Unheard(f"status {response.status}")
                shown = response.headers.get(PROOF, "")
                body = await response.content.read(LONGEST_ANSWER + 1)
                while len(body) <= LONGEST_ANSWER and (more := await response.content.read(LONGEST_ANSWER + 1)):
                    body += more
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
            raise Unheard("what answers is no router: its answer cannot be read") from error
        except aiohttp.ClientError as error:
            raise Unheard(unreachable(error)) from error
        if len(body) <= LONGEST_ANSWER and not proven(shown, token, nonce, body):
            raise Unheard("who answers does not show that it is the router")
        return read(body)

    def client(self) -> aiohttp.ClientSession:
        """Return the session, made on first use: no proxy, no cookies, connections that are not kept for long."""
        if self.session is None:
            import aiohttp

            self.session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=AT_ONCE, keepalive_timeout=SHARED, use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
            )
        return self.session

    async def close(self) -> None:
        """Drop what is under way, and the connections."""
        tasks = [task for _, task in self.shared.values()]
        self.shared.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.session is not None:
            await self.session.close()


def question(token: str, nonce: str) -> str:
    """Return the header of a question by who holds the token."""
    return f"Kars {nonce} {code(token, b'ask', nonce.encode())}"


def proven(shown: str, token: str, nonce: str, body: bytes) -> bool:
    """Whether an answer shows that who holds the token gave it, with this body and to this question."""
    return hmac.compare_digest(shown.encode(errors="replace"), code(token, b"answer", nonce.encode(), body).encode())


def code(token: str, *parts: bytes) -> str:
    """Return HMAC-SHA256 over lines, in hex."""
    return hmac.new(token.encode(), b"\n".join(parts), "sha256").hexdigest()


def unreachable(error: Exception) -> str:
    """Say that a router cannot be reached, in the system's words where it has any."""
    number = error.errno if isinstance(error, OSError) else None
    return f"cannot be reached: {os.strerror(number) if number else 'the connection broke'}"


def read(body: bytes) -> tuple[Entry, ...]:
    """Read a router's answer; `Unheard` when it is too large, no such document, or of another version."""
    if len(body) > LONGEST_ANSWER:
        raise Unheard(f"more than {LONGEST_ANSWER} bytes")
    try:
        answer = msgspec.json.decode(body, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unheard("no policy status") from error
    if answer.schema_version != SCHEMA_VERSION:
        raise Unheard(f"schema version {answer.schema_version}, not {SCHEMA_VERSION}")
    if len(answer.entries) > MOST_ENTRIES:
        raise Unheard(f"more than {MOST_ENTRIES} entries")
    return tuple(shortened(entry) for entry in answer.entries)


def shortened(entry: Entry) -> Entry:
    """Cut a router's own words to what fits a condition."""
    if entry.last_error and len(entry.last_error) > LONGEST_ERROR:
        return msgspec.structs.replace(entry, last_error=entry.last_error[:LONGEST_ERROR])
    return entry
