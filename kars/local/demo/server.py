"""Routes requests to handlers and sends what they return, over granian's RSGI protocol."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian._granian import RSGIProtocolError as ProtocolError

from kars.local.demo import catalog, chat, completions, embeddings, images, messages, responses
from kars.local.demo.faults import Refusal, render
from kars.local.demo.reply import Answer, Call, Dialect, Reply, Stream

GREETING = b"""This is the kars demo model server. Point a client at it:

  OPENAI_BASE_URL=http://.../v1     ANTHROPIC_BASE_URL=http://...     AZURE_OPENAI_ENDPOINT=http://...

Any key will do. It answers the same words to the same question and keeps nothing.
"""

POSTED: Mapping[str, Callable[[Call], Reply]] = {
    "chat/completions": chat.handle,
    "completions": completions.handle,
    "embeddings": embeddings.handle,
    "responses": responses.handle,
    "images/generations": images.handle,
    "messages": messages.handle,
    "messages/count_tokens": messages.count_tokens,
}
#: Operations Azure serves under a deployment's name.
DEPLOYED = ("chat/completions", "completions", "embeddings", "images/generations")
MODELS = re.compile(r"/openai/models(/[^/]+)?")
AZURE = re.compile(r"/openai/deployments/([^/]+)/(.+)")


class Scope(Protocol):
    """What is used of an RSGI scope."""

    proto: str
    method: str
    path: str
    headers: Mapping[str, str]


class Transport(Protocol):
    """An open response body."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a piece; raises when the client has gone."""


class Http(Protocol):
    """What is used of an RSGI HTTP protocol."""

    def __call__(self) -> Awaitable[bytes]:
        """Read the whole request body."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a whole response."""

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> Transport:
        """Open a streamed response."""


@dataclass(frozen=True)
class App:
    """The RSGI application; `pace` is the pause in seconds after each streamed event."""

    pace: float = 0.02

    async def __rsgi__(self, scope: Scope, protocol: Http) -> None:
        """Serve one request. Dropped when the client leaves: the rest of a stream is never made."""
        names = dict(scope.headers.items())
        call = plain(Call(scope.method, scope.path, names, await protocol(), dialect(scope.path, names)))
        reply = answer(call)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        headers = [*reply.headers, *service_headers(call)]
        try:
            if isinstance(reply, Answer):
                protocol.response_bytes(reply.status, [("content-type", reply.content_type), *headers], reply.body)
            else:
                await self.send(reply, protocol, headers)
        except (ProtocolClosed, ProtocolError):
            return

    async def send(self, reply: Stream, protocol: Http, headers: list[tuple[str, str]]) -> None:
        """Send a stream at the server's pace."""
        kind = ("content-type", "text/event-stream; charset=utf-8")
        transport = protocol.response_stream(reply.status, [kind, ("cache-control", "no-cache"), *headers])
        for piece in reply.events:
            await transport.send_bytes(piece)
            if self.pace:
                await asyncio.sleep(self.pace)


def dialect(path: str, headers: Mapping[str, str]) -> Dialect:
    """Whose shapes a request expects, errors included."""
    if "/v1/messages" in path or "anthropic-version" in headers:
        return Dialect.ANTHROPIC
    return Dialect.OPENAI


def plain(call: Call) -> Call:
    """Put the request under its `/v1/` path, if it came under one of Azure's or Foundry's."""
    azure = AZURE.fullmatch(call.path)
    if azure is not None and azure[2] in DEPLOYED:
        return replace(call, path=f"/v1/{azure[2]}", deployment=azure[1])
    if MODELS.fullmatch(call.path):
        return replace(call, path=call.path.replace("/openai/", "/v1/", 1))
    for prefix in ("/openai/v1/", "/anthropic/v1/"):
        if call.path.startswith(prefix):
            return replace(call, path="/v1/" + call.path.removeprefix(prefix))
    return call


def answer(call: Call) -> Reply:
    """Answers any request, refusals included. Pure."""
    try:
        return route(call)
    except Refusal as refusal:
        return render(refusal, call.dialect, call.seed)


def route(call: Call) -> Reply:
    """Find the handler for the path; raises a `Refusal` (404, 405) when there is none."""
    if call.path in ("/", "/healthz"):
        return Answer(200, GREETING if call.path == "/" else b"ok", content_type="text/plain; charset=utf-8")
    if call.path == "/openai/deployments":
        return catalog.deployments(call)
    if not call.path.startswith("/v1/"):
        raise unknown_path(call)
    operation = call.operation
    if operation == "models" and call.method == "GET":
        return catalog.models(call)
    if operation.startswith("models/") and call.method == "GET":
        return catalog.model(call, operation.removeprefix("models/"))
    return posted(call, operation)


def posted(call: Call, operation: str) -> Reply:
    """Answers an operation that takes a body."""
    handler = POSTED.get(operation)
    if handler is None:
        raise unknown_path(call)
    if call.method != "POST":
        raise Refusal(405, f"Not allowed to {call.method} on {call.path}.", code="method_not_allowed")
    return handler(call)


def unknown_path(call: Call) -> Refusal:
    """Make the 404 for a path nobody serves."""
    return Refusal(404, f"Invalid URL ({call.method} {call.path})", code="unknown_url")


def service_headers(call: Call) -> list[tuple[str, str]]:
    """Make the headers both services send with every answer: request id and what is left of the limits."""
    seed = call.seed
    if call.dialect is Dialect.ANTHROPIC:
        limits = [
            (f"anthropic-ratelimit-{kind}-{name}", value)
            for kind in ("requests", "tokens", "input-tokens", "output-tokens")
            for name, value in (("limit", "100000"), ("remaining", "99999"), ("reset", "2030-01-01T00:00:00Z"))
        ]
        return [("request-id", seed.id("req_")), ("anthropic-organization-id", "org-kars-demo"), *limits]
    limits = [
        (f"x-ratelimit-{name}-{kind}", value)
        for kind in ("requests", "tokens")
        for name, value in (("limit", "100000"), ("remaining", "99999"), ("reset", "6ms"))
    ]
    return [
        ("x-request-id", seed.id("req_")),
        ("openai-organization", "org-kars-demo"),
        ("openai-processing-ms", str(1 + seed.number("processing", 40))),
        ("openai-version", "2020-10-01"),
        *limits,
    ]
