"""What a handler is given and what it returns: plain values, so that answering is a pure function."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

Json: TypeAlias = dict[str, object]


class Dialect(Enum):
    """Whose shapes a route speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True)
class Seed:
    """Where every identifier and choice of an answer comes from: a digest of what was asked."""

    digest: bytes

    @classmethod
    def of(cls, operation: str, body: object) -> "Seed":
        """Digests an operation and its parsed body.

        `stream_options` is left out: asking for usage must not change the answer it is about.
        """
        if isinstance(body, dict):
            body = {key: value for key, value in body.items() if key != "stream_options"}
        text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return cls(hashlib.sha256(f"{operation}\n{text}".encode("utf-8", "surrogatepass")).digest())

    def bytes(self, label: str, size: int) -> bytes:
        """`size` bytes that depend on the request and the label only."""
        return hashlib.shake_256(self.digest + label.encode("utf-8", "surrogatepass")).digest(size)

    def id(self, prefix: str, label: str = "") -> str:
        """Make an identifier such as `chatcmpl-3f…`."""
        return prefix + self.bytes(prefix + label, 12).hex()

    def number(self, label: str, below: int) -> int:
        """Make a number in `0..below`."""
        return int.from_bytes(self.bytes(label, 8), "big") % below

    @property
    def created(self) -> int:
        """A plausible Unix time in seconds."""
        return 1_700_000_000 + self.number("created", 10_000_000)


@dataclass(frozen=True)
class Call:
    """One request, read far enough to be routed."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    dialect: Dialect = Dialect.OPENAI
    #: The deployment named in an Azure path; it wins over the body's `model`.
    deployment: str | None = None

    @property
    def operation(self) -> str:
        """The path below `/v1/`, such as `chat/completions`."""
        return self.path.rpartition("/v1/")[2]

    @property
    def seed(self) -> "Seed":
        """The seed of what every answer to this request has, readable body or not."""
        try:
            body: object = json.loads(self.body)
        except ValueError:
            body = self.body.decode("utf-8", "replace")
        return Seed.of(self.operation, body)

    @property
    def retries(self) -> int:
        """How often the SDK says it has already tried (`x-stainless-retry-count`)."""
        value = self.headers.get("x-stainless-retry-count", "0")
        return int(value) if value.isdigit() else 0


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    #: Seconds to wait before answering.
    delay: float = 0.0


@dataclass(frozen=True)
class Stream:
    """A response of server-sent events, each already framed."""

    events: Iterable[bytes]
    headers: tuple[tuple[str, str], ...] = ()
    #: Seconds to wait before answering.
    delay: float = 0.0
    status: int = field(default=200, init=False)


Reply: TypeAlias = Answer | Stream


def encode(value: object) -> bytes:
    """JSON as the services send it: compact, UTF-8, members in the order they were put in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def data(value: object) -> bytes:
    """Make an unnamed event, as chat completions stream them."""
    return b"data: " + encode(value) + b"\n\n"


def event(value: Json) -> bytes:
    """Make an event named by its own `type`, as Responses and Anthropic streams have them."""
    return f"event: {value['type']}\n".encode() + data(value)


DONE = b"data: [DONE]\n\n"
