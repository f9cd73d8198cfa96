"""`/v1/messages` and `/v1/messages/count_tokens`, whole and streamed with Anthropic's event sequence."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from kars.local.demo import shapes, voice
from kars.local.demo.faults import body_error, break_event, check_model
from kars.local.demo.reply import Answer, Call, Dialect, Json, Reply, Seed, Stream, encode, event


class Source(msgspec.Struct):
    """Where a picture or document is."""

    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""


class CacheControl(msgspec.Struct):
    """A mark up to which the prompt is to be cached."""

    type: str
    ttl: str = "5m"


class Block(msgspec.Struct):
    """One content block."""

    type: str
    text: str = ""
    source: Source | None = None
    content: "str | list[Block] | None" = None
    cache_control: CacheControl | None = None


Content = str | list[Block]


class Message(msgspec.Struct):
    """One message of the conversation."""

    role: str
    content: Content


class Tool(msgspec.Struct):
    """A tool on offer."""

    name: str
    input_schema: dict[str, object] = {}
    cache_control: CacheControl | None = None


class ToolChoice(msgspec.Struct):
    """`tool_choice`."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(msgspec.Struct):
    """`thinking`."""

    type: str
    budget_tokens: int = 0


class Body(msgspec.Struct):
    """The members of a request this server looks at; `max_tokens` is not needed for counting."""

    model: str
    messages: list[Message]
    max_tokens: int | None = None
    system: Content = ""
    stream: bool = False
    stop_sequences: list[str] = []
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None


@dataclass(frozen=True)
class Outcome:
    """What a request gets."""

    saying: voice.Saying
    calls: list[voice.ToolCall]
    thought: str

    @property
    def stop_reason(self) -> str:
        """`stop_reason`."""
        if self.calls:
            return "tool_use"
        return {"length": "max_tokens", "sequence": "stop_sequence"}.get(self.saying.end, "end_turn")

    @property
    def spent(self) -> int:
        """Output tokens."""
        called = sum(voice.count(call.name + call.arguments) for call in self.calls)
        return len(self.saying.pieces) + called + voice.count(self.thought)


def handle(call: Call) -> Reply:
    """Answers one request."""
    body, seed = shapes.read(call, Body)
    check(body)
    if body.max_tokens is None:
        raise body_error("max_tokens: Field required")
    delay = check_model(call, body.model)
    outcome = decide(body, seed)
    if body.stream:
        return Stream(stream(body, seed, outcome), delay=delay)
    return Answer(200, encode(whole(body, seed, outcome)), delay=delay)


def count_tokens(call: Call) -> Reply:
    """Count a request's input tokens."""
    body, _ = shapes.read(call, Body)
    check(body)
    delay = check_model(call, body.model)
    return Answer(200, encode({"input_tokens": sum(input_tokens(body))}), delay=delay)


def check(body: Body) -> None:
    """Raise a `Refusal` (400) for a conversation the service would not take."""
    if not body.messages:
        raise body_error("messages: at least one message is required")
    for at, message in enumerate(body.messages):
        if message.role not in ("user", "assistant"):
            raise body_error(f"messages.{at}.role: Input should be 'user' or 'assistant'")


def decide(body: Body, seed: Seed) -> Outcome:
    """Decide what to say or call."""
    last = body.messages[-1]
    prompt = text_of(last.content)
    choice = body.tool_choice or ToolChoice("auto")
    answered = any(block.type == "tool_result" for block in blocks(last.content))
    thought = f"Somebody asks {body.model} something; answer kindly." if thinks(body) else ""
    if body.tools and choice.type != "none" and not answered:
        tools = [voice.Tool(tool.name, tool.input_schema) for tool in body.tools]
        offer = voice.Offer(tools, choice.name, parallel=not choice.disable_parallel_tool_use)
        calls = voice.call_tools(offer, prompt, seed, prefix="toolu_")
        return Outcome(voice.Saying((), "stop"), calls, thought)
    seen = [name for message in body.messages for name in seen_in(message.content)]
    text = voice.answer(body.model, prompt, seed, seen=seen)
    return Outcome(voice.limit(text, body.max_tokens, body.stop_sequences), [], thought)


def thinks(body: Body) -> bool:
    """Whether a thinking block was asked for."""
    return body.thinking is not None and body.thinking.type in ("enabled", "adaptive")


def blocks(content: Content | None) -> list[Block]:
    """Content as blocks."""
    return [Block("text", content)] if isinstance(content, str) else content or []


def text_of(content: Content | None) -> str:
    """Make the text in it, tool results included."""
    found = [text_of(block.content) if block.type == "tool_result" else block.text for block in blocks(content)]
    return "\n".join(text for text in found if text)


def seen_in(content: Content) -> list[str]:
    """Names what came besides text."""
    found = []
    for block in blocks(content):
        if block.type == "image" and block.source is not None:
            source = block.source
            is_data = source.type == "base64"
            found.append(voice.describe_bytes(source.media_type, source.data) if is_data else "a picture by address")
        elif block.type == "document":
            found.append("a document")
    return found


def input_tokens(body: Body) -> tuple[int, int, int]:
    """Input tokens: those not to be cached, to be cached for five minutes, and for an hour."""
    counted = [0, 0, 0]
    pending = 0
    entries = [(voice.count(tool.name + json.dumps(tool.input_schema)), tool.cache_control) for tool in body.tools]
    everything = blocks(body.system) + [block for message in body.messages for block in blocks(message.content)]
    entries += [
        (1 + voice.count(text_of([block])) + 100 * len(seen_in([block])), block.cache_control) for block in everything
    ]
    for amount, mark in entries:
        pending += amount
        if mark is not None:
            counted[2 if mark.ttl == "1h" else 1] += pending
            pending = 0
    counted[0] = pending
    return counted[0], counted[1], counted[2]


def usage(body: Body, output: int) -> Json:
    """Make the `usage` object."""
    plain, short, long = input_tokens(body)
    return {
        "input_tokens": plain,
        "cache_creation_input_tokens": short + long,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": output,
        "service_tier": "standard",
    }


def signature(seed: Seed) -> str:
    """Decide what a thinking block is signed with."""
    return seed.bytes("signature", 48).hex()


def tool_use(call: voice.ToolCall, arguments: object) -> Json:
    """Make a tool use block."""
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def whole(body: Body, seed: Seed, outcome: Outcome) -> Json:
    """Make the buffered answer."""
    content: list[Json] = []
    if outcome.thought:
        content.append({"type": "thinking", "thinking": outcome.thought, "signature": signature(seed)})
    if outcome.saying.pieces:
        content.append({"type": "text", "text": outcome.saying.text})
    content += [tool_use(call, json.loads(call.arguments)) for call in outcome.calls]
    ended: Json = {"stop_reason": outcome.stop_reason, "stop_sequence": outcome.saying.stopped_by}
    return frame(body, seed, content) | ended | {"usage": usage(body, outcome.spent)}


def frame(body: Body, seed: Seed, content: list[Json]) -> Json:
    """Make the members a message starts with."""
    return {"id": seed.id("msg_"), "type": "message", "role": "assistant", "model": body.model, "content": content}


def stream(body: Body, seed: Seed, outcome: Outcome) -> Iterator[bytes]:
    """Make the streamed answer; a ping follows the first block's start, as the service does it."""
    opened = frame(body, seed, []) | {"stop_reason": None, "stop_sequence": None, "usage": usage(body, 1)}
    yield event({"type": "message_start", "message": opened})
    broken = body.model.startswith("breaks-")
    pinged = False
    for at, (start, deltas) in enumerate(content_blocks(seed, outcome)):
        yield event({"type": "content_block_start", "index": at, "content_block": start})
        if not pinged:
            pinged = True
            yield event({"type": "ping"})
        for number, delta in enumerate(deltas):
            if broken and number == len(deltas) // 2:
                yield break_event(Dialect.ANTHROPIC, seed)
                return
            yield event({"type": "content_block_delta", "index": at, "delta": delta})
        yield event({"type": "content_block_stop", "index": at})
    ended: Json = {"stop_reason": outcome.stop_reason, "stop_sequence": outcome.saying.stopped_by}
    yield event({"type": "message_delta", "delta": ended, "usage": {"output_tokens": outcome.spent}})
    yield event({"type": "message_stop"})


def content_blocks(seed: Seed, outcome: Outcome) -> Iterator[tuple[Json, list[Json]]]:
    """Each block as it starts, with the deltas that complete it."""
    if outcome.thought:
        deltas: list[Json] = [{"type": "thinking_delta", "thinking": piece} for piece in voice.tokens(outcome.thought)]
        yield (
            {"type": "thinking", "thinking": "", "signature": ""},
            [
                *deltas,
                {"type": "signature_delta", "signature": signature(seed)},
            ],
        )
    if outcome.saying.pieces:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in outcome.saying.pieces]
    for call in outcome.calls:
        pieces = ["", *call.pieces]
        yield tool_use(call, {}), [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
