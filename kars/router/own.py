"""Ask this sandbox's own router about its egress, and say what to do where it does not answer.

The answers are tolerant: what a newer router adds is passed over, what an older one lacks is empty.
"""

from __future__ import annotations

import ipaddress
from typing import Any, TypeVar

import msgspec

from kars.errors import FailureError, NotFoundError, UnavailableError, UsageError
from kars.router import tools

T = TypeVar("T")

# What helps, by HTTP status.
ADVICE = {
    401: "set ADMIN_TOKEN to the router's token, or run this where /etc/kars/secrets/admin-token can be read",
    403: "ROUTER_ADMIN_ALLOW_IPS does not name this address, or the router has no admin token at all",
    503: "the router is not ready or is draining; `kars probe /readyz` says more",
}


class Blocked(msgspec.Struct, frozen=True):
    """One row of `GET /internal/egress/blocked`; times are Unix seconds."""

    host: str
    port: int = 0
    source_sandbox: str = ""
    count: int = 0
    first_seen_unix: int = 0
    last_seen_unix: int = 0


class BlockedTable(msgspec.Struct, frozen=True):
    """`GET /internal/egress/blocked`, newest first."""

    total: int = 0
    count: int = 0
    entries: list[Blocked] = []


class Top(msgspec.Struct, frozen=True):
    """One row of `GET /internal/egress/blocked/top`."""

    host: str
    count: int


class TopTable(msgspec.Struct, frozen=True):
    """`GET /internal/egress/blocked/top`."""

    top: list[Top] = []


class Allowlist(msgspec.Struct, frozen=True):
    """`GET /egress/allowlist`: the hosts in force."""

    count: int = 0
    domains: list[str] = []


class Blocklist(msgspec.Struct, frozen=True):
    """`GET /blocklist/status`."""

    enabled: bool = False
    domain_count: int = 0
    learn_mode: bool = False
    learned_domains: int = 0


class Bundle(msgspec.Struct, frozen=True):
    """One entry of `GET /internal/policy-status`."""

    kind: str
    digest: str | None = None
    source_path: str = ""
    loaded_at: str = ""
    last_error: str | None = None


class Bundles(msgspec.Struct, frozen=True):
    """`GET /internal/policy-status`."""

    entries: list[Bundle] = []


class Mode(msgspec.Struct, frozen=True):
    """The answer to a change of the learn mode, or to forgetting what was learned."""

    learn_mode: bool = False


def overrides(router: str) -> dict[str, str]:
    """Turn `PORT`, `ADDRESS:PORT` or `http://ADDRESS:PORT` into the settings of the router that is meant."""
    if not router:
        return {}
    host, _, port = router.removeprefix("http://").rstrip("/").rpartition(":")
    host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host.removeprefix("[").removesuffix("]"))
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise UsageError(
            f"no router's address: {router}",
            hint="PORT or http://ADDRESS:PORT; for a pod, `kubectl port-forward` first and give the local port",
        )
    return {"ROUTER_BIND": str(address), "ROUTER_PORT": port}


def ask(method: str, path: str, kind: type[T], *, body: object = None, router: str = "") -> T:
    """Call a route and decode its answer; an error says what to do."""
    encoded = None if body is None else msgspec.json.encode(body)
    status, answer = tools.probe(method, path, encoded, overrides=overrides(router))
    if not 200 <= status < 300:
        raise refused(method, path, status, answer)
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FailureError(f"{method} {path}: the answer is not understood: {error}") from error


def refused(method: str, path: str, status: int, answer: bytes) -> Exception:
    """Make the error of an answer that is none."""
    route = path.partition("?")[0]
    told = words(answer)
    text = f"{method} {route}: HTTP {status}{': ' + told if told else ''}"
    if status == 404:
        return NotFoundError(text, hint="this router has no such route; is it older than this command?")
    if status == 503:
        return UnavailableError(text, hint=ADVICE[503])
    return FailureError(text, hint=ADVICE.get(status, ""))


def words(answer: bytes) -> str:
    """Find the router's own words in an error's body: the flat shape's, or OpenAI's."""
    try:
        document: Any = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""
