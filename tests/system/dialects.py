"""The three streaming dialects, so that one test covers each."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.system import payloads
from tests.system.client import Response


@dataclass(frozen=True)
class Dialect:
    """How a call in a dialect looks, answered and broken."""

    name: str
    path: str
    request: Callable[..., dict]
    events: Callable[..., list[bytes]]
    #: A whole answer with usage 5 in, 7 out.
    whole: Callable[[], bytes]
    #: What a silent stream is kept alive with.
    keepalive: bytes

    def error(self, document: dict) -> dict:
        """The error of an answer in this dialect: at least `type` and `message`, for OpenAI `code` too."""
        if self.name == "messages":
            assert document["type"] == "error"
            assert "request_id" in document
            assert set(document["error"]) >= {"type", "message"}
        else:
            assert set(document["error"]) == {"message", "type", "param", "code"}
        error: dict = document["error"]
        return error

    def event_error(self, found: Response) -> dict:
        """The error a stream ends with: one event, the last one, and no `[DONE]` anywhere."""
        assert found.status == 200
        assert b"[DONE]" not in found.body
        assert found.body.endswith(b"\n\n"), found.body[-200:]
        last = found.data[-1]
        if self.name == "responses":
            assert found.events[-1].startswith(b"event: error\n") or b"response.failed" in found.events[-1]
            return last
        if self.name == "messages":
            assert found.events[-1].startswith(b"event: error\n")
        return self.error(last)


def whole_response() -> bytes:
    return payloads.pack(payloads.response_object("completed", "hello", usage=payloads.response_usage()))


COMMENT = b": keepalive\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'

CHAT = Dialect("chat", "/v1/chat/completions", payloads.chat_request, payloads.chat_events, payloads.chat, COMMENT)
RESPONSES = Dialect(
    "responses", "/v1/responses", payloads.responses_request, payloads.response_events, whole_response, COMMENT
)
MESSAGES = Dialect(
    "messages", "/v1/messages", payloads.messages_request, payloads.message_events, payloads.message, PING
)
ALL = (CHAT, RESPONSES, MESSAGES)


def inserted(original: bytes, sent: bytes) -> bytes:
    """What was put into one place of `original` to make `sent`; fails if anything else differs."""
    at = 0
    while at < len(original) and at < len(sent) and original[at] == sent[at]:
        at += 1
    added = len(sent) - len(original)
    assert added >= 0, f"{original!r} lost bytes and became {sent!r}"
    assert sent[at + added :] == original[at:], f"{original!r} became {sent!r}"
    return sent[at : at + added]
