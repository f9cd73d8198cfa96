"""The cold routes: an RSGI application over the engine. The Rust front relays to it after its own checks.

| Method    | Path         | Answer                                                                       |
|-----------|--------------|------------------------------------------------------------------------------|
| GET, HEAD | /admin/model | `{"model": effective, "default": configured}`                                |
| PUT       | /admin/model | `{"model": str or null}` in; `{"model": effective, "previous": effective}` out |
| GET, HEAD | /statusz     | the status as text for people                                                |
| GET, HEAD | /configz     | the effective settings, secrets redacted, and the policy generation, as JSON |

Errors are flat: `{"error": text}` with 400, 404, 405 (with Allow), 413 or 500.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from kars import _core
from kars.router import statusz

# A model name is at most 256 bytes (the core's bound); the rest is JSON around it.
BODY_BYTES = 4096
MODEL_BYTES = 256

type_json = ("content-type", "application/json")
type_text = ("content-type", "text/plain; charset=utf-8")
no_store = ("cache-control", "no-store")


class Scope(Protocol):
    """What this application reads of an RSGI scope (RSGI 1.6, "HTTP protocol")."""

    proto: str
    method: str
    path: str


class Exchange(Protocol):
    """What this application calls of an RSGI HTTP protocol object."""

    def __call__(self) -> Awaitable[bytes]:
        """Read the whole body."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer."""


class Answer(msgspec.Struct, frozen=True):
    """A status, the content type's header and a body."""

    status: int
    body: bytes
    kind: tuple[str, str] = type_json
    allow: str = ""


class ModelChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PUT /admin/model; null lifts the override."""

    model: str | None


class App:
    """The application."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine
        self.routes: Mapping[str, Mapping[str, Callable[[bytes], Answer]]] = {
            "/admin/model": {"GET": self.get_model, "PUT": self.put_model},
            "/statusz": {"GET": self.get_status},
            "/configz": {"GET": self.get_config},
        }

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        """Answer one call."""
        answer = self.respond(scope.method, scope.path, await exchange())
        headers = [answer.kind, no_store]
        if answer.allow:
            headers.append(("allow", answer.allow))
        exchange.response_bytes(answer.status, headers, b"" if scope.method == "HEAD" else answer.body)

    def respond(self, method: str, path: str, body: bytes) -> Answer:
        """Find the route and call it."""
        methods = self.routes.get(path)
        if methods is None:
            return refusal(404, "no such route")
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            return refusal(405, f"{path} takes {' or '.join(methods)}", allow=", ".join(methods))
        if len(body) > BODY_BYTES:
            return refusal(413, f"body of {len(body)} bytes, at most {BODY_BYTES}")
        try:
            return route(body)
        except _core.CoreError as error:
            return refusal(500, str(error))

    def get_model(self, _body: bytes) -> Answer:
        """GET /admin/model."""
        override, default = self.engine.admin_model()
        return encoded({"model": override or default, "default": default})

    def put_model(self, body: bytes) -> Answer:
        """PUT /admin/model."""
        try:
            change = msgspec.json.decode(body, type=ModelChange)
        except msgspec.DecodeError as error:
            return refusal(400, f"body: {error}")
        except UnicodeDecodeError:
            return refusal(400, "body: not UTF-8")
        if change.model is not None and not nameable(change.model):
            return refusal(400, f"model: 1 to {MODEL_BYTES} bytes without spaces or control characters")
        _, default = self.engine.admin_model()
        try:
            previous = self.engine.set_admin_model(change.model)
        except _core.CoreError as error:
            return refusal(400, str(error))
        return encoded({"model": change.model or default, "previous": previous or default})

    def get_status(self, _body: bytes) -> Answer:
        """GET /statusz."""
        return Answer(200, statusz.page(self.engine.status()).encode(), type_text)

    def get_config(self, _body: bytes) -> Answer:
        """GET /configz."""
        return Answer(200, statusz.config(self.engine.status()))


def nameable(model: str) -> bool:
    """Whether a text can be a model's name: what a URL or a JSON string carries without surprises."""
    return 0 < len(model.encode()) <= MODEL_BYTES and model.isprintable() and " " not in model


def encoded(value: object) -> Answer:
    """Make a 200 with JSON."""
    return Answer(200, msgspec.json.encode(value))


def refusal(status: int, text: str, *, allow: str = "") -> Answer:
    """Make an error of the flat shape."""
    return Answer(status, msgspec.json.encode({"error": text}), allow=allow)
