"""`/v1/chat/completions`, whole and streamed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from kars.local.demo import filters, shapes, voice
from kars.local.demo.faults import body_error, break_event, check_model
from kars.local.demo.reply import DONE, Answer, Call, Dialect, Json, Reply, Seed, Stream, data, encode


class Function(msgspec.Struct):
    """A function on offer, or the name of one that was called."""

    name: str
    parameters: dict[str, object] = {}


class Tool(msgspec.Struct):
    """A tool on offer."""

    type: str
    function: Function | None = None


class Message(msgspec.Struct):
    """One message of the conversation."""

    role: str
    content: shapes.Content = None


class JsonSchema(msgspec.Struct):
    """The schema an answer must fit."""

    name: str
    schema: dict[str, object] = {}


class Format(msgspec.Struct):
    """`response_format`."""

    type: str
    json_schema: JsonSchema | None = None


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool | None = None


class Body(msgspec.Struct):
    """The members of a request this server looks at."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, object] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Format | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    service_tier: str | None = None


@dataclass(frozen=True)
class Choice:
    """One finished choice."""

    saying: voice.Saying
    calls: list[voice.ToolCall] = field(default_factory=list)

    @property
    def finish(self) -> str:
        """`finish_reason`."""
        if self.calls:
            return "tool_calls"
        return "length" if self.saying.end == "length" else "stop"

    @property
    def spent(self) -> int:
        """Output tokens."""
        return len(self.saying.pieces) + sum(voice.count(call.name + call.arguments) for call in self.calls)


def handle(call: Call) -> Reply:
    """Answers one request."""
    body, seed = shapes.read(call, Body)
    if not body.messages:
        raise body_error("[] is too short - 'messages'", "messages", "empty_array")
    delay = check_model(call, body.model)
    choices = decide(body, seed)
    usage = count_usage(body, choices)
    if body.stream:
        return Stream(stream(body, seed, choices, usage), delay=delay)
    return Answer(200, encode(whole(body, seed, choices, usage)), delay=delay)


def decide(body: Body, seed: Seed) -> list[Choice]:
    """Decide what each choice says or calls."""
    last = body.messages[-1]
    prompt = shapes.text_of(last.content)
    seen = [name for message in body.messages for name in shapes.seen_in(message.content)]
    wanted = offered(body) if last.role != "tool" else []
    most = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    found = []
    for at in range(check_n(body.n)):
        if wanted:
            offer = voice.Offer(wanted, forced(body.tool_choice), body.parallel_tool_calls is not False)
            calls = voice.call_tools(offer, prompt, seed, prefix="call_")
            found.append(Choice(voice.Saying((), "stop"), calls))
            continue
        text = formatted(body.response_format, prompt, body.model)
        text = voice.answer(body.model, prompt, seed, variant=at, seen=seen) if text is None else text
        found.append(Choice(voice.limit(text, most, shapes.stops(body.stop))))
    return found


def check_n(given: int | None) -> int:
    """How many choices; raises a `Refusal` outside 1..=128."""
    if given is not None and not 1 <= given <= 128:
        raise body_error(f"Invalid 'n': {given} is not between 1 and 128.", "n", "integer_out_of_range")
    return given or 1


def offered(body: Body) -> list[voice.Tool]:
    """Make the functions that may be called."""
    if body.tool_choice == "none":
        return []
    functions = [tool.function for tool in body.tools or [] if tool.function is not None]
    return [voice.Tool(function.name, function.parameters) for function in functions]


def forced(choice: str | dict[str, object] | None) -> str | None:
    """Make the one function the request insists on."""
    if not isinstance(choice, dict):
        return None
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else choice.get("name")
    return str(name) if name else None


def formatted(wanted: Format | None, prompt: str, model: str) -> str | None:
    """Make the answer as JSON, when the request asks for that."""
    if wanted is None or wanted.type == "text":
        return None
    if wanted.json_schema is not None:
        return json.dumps(voice.example(wanted.json_schema.schema), ensure_ascii=False)
    return json.dumps({"model": model, "asked": prompt, "answer": "as JSON, as you wished ✓"}, ensure_ascii=False)


def count_usage(body: Body, choices: list[Choice]) -> Json:
    """Make the `usage` object."""
    asked = sum(3 + voice.count(shapes.text_of(message.content)) for message in body.messages)
    asked += sum(100 for message in body.messages for _ in shapes.seen_in(message.content))
    asked += sum(voice.count(json.dumps(tool.schema)) for tool in offered(body))
    said = sum(choice.spent for choice in choices)
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def frame(body: Body, seed: Seed, kind: str) -> Json:
    """Make the members every document of one answer shares."""
    return {
        "id": seed.id("chatcmpl-"),
        "object": kind,
        "created": seed.created,
        "model": body.model,
        "service_tier": "default",
        "system_fingerprint": "fp_kars_demo",
    }


def whole(body: Body, seed: Seed, choices: list[Choice], usage: Json) -> Json:
    """Make the buffered answer."""
    found = []
    for at, choice in enumerate(choices):
        message: Json = {
            "role": "assistant",
            "content": None if choice.calls else choice.saying.text,
            "refusal": None,
            "annotations": [],
        }
        if choice.calls:
            message["tool_calls"] = [tool_call(call) for call in choice.calls]
        entry: Json = {
            "index": at,
            "message": message,
            "logprobs": logprobs(body, choice.saying.pieces, seed),
            "finish_reason": choice.finish,
        }
        found.append(entry | filters.choice_results(body.model))
    return (
        frame(body, seed, "chat.completion") | {"choices": found, "usage": usage} | filters.prompt_results(body.model)
    )


def tool_call(call: voice.ToolCall) -> Json:
    """Make a whole tool call."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def logprobs(body: Body, pieces: tuple[str, ...], seed: Seed) -> Json | None:
    """Made-up log probabilities of an answer's tokens, when asked for."""
    if not body.logprobs:
        return None
    found = []
    for at, piece in enumerate(pieces):
        own = token_logprob(piece, seed.number(f"logprob{at}", 100))
        others = [token_logprob(f"{piece}{rank}", 100 + rank) for rank in range(1, body.top_logprobs or 0)]
        found.append(own | {"top_logprobs": [own, *others] if body.top_logprobs else []})
    return {"content": found, "refusal": None}


def token_logprob(piece: str, hundredths: int) -> Json:
    """One token with its log probability."""
    return {"token": piece, "logprob": -hundredths / 100, "bytes": list(piece.encode())}


def stream(body: Body, seed: Seed, choices: list[Choice], usage: Json) -> Iterator[bytes]:
    """Make the streamed answer: role, deltas, finish, and the usage chunk only if it was asked for."""
    with_usage = body.stream_options is not None and body.stream_options.include_usage is True
    shared = frame(body, seed, "chat.completion.chunk")
    extra: Json = {"usage": None} if with_usage else {}
    annotated = filters.prompt_results(body.model)
    if annotated:
        yield data({"id": "", "object": "", "created": 0, "model": "", "choices": []} | annotated)
    for chunk in interleave([deltas(body, seed, at, choice) for at, choice in enumerate(choices)]):
        if chunk is None:
            yield break_event(Dialect.OPENAI, seed)
            return
        yield data(shared | {"choices": [chunk]} | extra)
    if with_usage:
        yield data(shared | {"choices": [], "usage": usage})
    yield DONE


def interleave(several: list[Iterator[Json | None]]) -> Iterator[Json | None]:
    """Take from each in turn, as services stream several choices."""
    while several:
        for one in list(several):
            try:
                yield next(one)
            except StopIteration:
                several.remove(one)


def deltas(body: Body, seed: Seed, index: int, choice: Choice) -> Iterator[Json | None]:
    """Make the chunks of one choice; `None` where the stream breaks."""

    def chunk(delta: Json, finish: str | None = None, pieces: tuple[str, ...] = ()) -> Json:
        found = logprobs(body, pieces, seed) if pieces else None
        entry: Json = {"index": index, "delta": delta, "logprobs": found, "finish_reason": finish}
        return entry | (filters.choice_results(body.model) if pieces else {})

    yield chunk({"role": "assistant", "content": None if choice.calls else "", "refusal": None})
    half = len(choice.saying.pieces) // 2 if body.model.startswith("breaks-") else None
    for at, piece in enumerate(choice.saying.pieces):
        if at == half:
            yield None
        yield chunk({"content": piece}, pieces=(piece,))
    for at, call in enumerate(choice.calls):
        opened = tool_call(call) | {"function": {"name": call.name, "arguments": ""}}
        yield chunk({"tool_calls": [{"index": at} | opened]})
        for piece in call.pieces:
            yield chunk({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
    yield chunk({}, choice.finish)
