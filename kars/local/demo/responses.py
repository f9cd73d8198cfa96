"""`/v1/responses`, whole and streamed with OpenAI's event sequence."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from kars.local.demo import filters, shapes, voice
from kars.local.demo.chat import forced
from kars.local.demo.faults import check_model
from kars.local.demo.reply import Answer, Call, Json, Reply, Seed, Stream, encode, event


class Item(msgspec.Struct):
    """One input item: a message, a function's output, a replayed call or reasoning."""

    type: str = "message"
    role: str = ""
    content: shapes.Content = None
    output: object = None


class Tool(msgspec.Struct):
    """A tool on offer; functions are flat here."""

    type: str
    name: str = ""
    parameters: dict[str, object] | None = None


class Format(msgspec.Struct):
    """`text.format`."""

    type: str = "text"
    schema: dict[str, object] = {}


class Text(msgspec.Struct):
    """`text`."""

    format: Format = msgspec.field(default_factory=Format)


class Reasoning(msgspec.Struct):
    """`reasoning`."""

    effort: str | None = None
    summary: str | None = None


class Body(msgspec.Struct):
    """The members of a request this server looks at."""

    model: str
    input: str | list[Item] = ""
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, object] | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    metadata: dict[str, str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    user: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a request gets."""

    saying: voice.Saying
    calls: list[voice.ToolCall]
    thought: str

    @property
    def cut(self) -> bool:
        """Whether the token limit ended the text."""
        return self.saying.end == "length"


def handle(call: Call) -> Reply:
    """Answers one request."""
    body, seed = shapes.read(call, Body)
    delay = check_model(call, body.model)
    outcome = decide(body, seed)
    if body.stream:
        return Stream(Events(body, seed, outcome).stream(), delay=delay)
    return Answer(200, encode(document(body, seed, outcome, status(outcome), items(seed, outcome))), delay=delay)


def status(outcome: Outcome) -> str:
    """Make the status of a finished response."""
    return "incomplete" if outcome.cut else "completed"


def conversation(body: Body) -> list[Item]:
    """Make the input as items."""
    if isinstance(body.input, str):
        return [Item(role="user", content=body.input)]
    return body.input


def decide(body: Body, seed: Seed) -> Outcome:
    """Decide what to say or call."""
    turns = conversation(body)
    last = turns[-1] if turns else Item()
    prompt = shapes.text_of(last.content)
    tools = functions(body)
    thought = f"Somebody asks {body.model} something; answer kindly." if summarizes(body) else ""
    if tools and body.tool_choice != "none" and last.type != "function_call_output":
        offer = voice.Offer(tools, forced(body.tool_choice), body.parallel_tool_calls is not False)
        return Outcome(voice.Saying((), "stop"), voice.call_tools(offer, prompt, seed, prefix="call_"), thought)
    prompt = prompt or str(last.output or "")
    seen = [name for turn in turns for name in shapes.seen_in(turn.content)]
    text = formatted(body, prompt) or voice.answer(body.model, prompt, seed, seen=seen)
    return Outcome(voice.limit(text, body.max_output_tokens), [], thought)


def functions(body: Body) -> list[voice.Tool]:
    """List the functions on offer."""
    return [voice.Tool(tool.name, tool.parameters or {}) for tool in body.tools or [] if tool.type == "function"]


def summarizes(body: Body) -> bool:
    """Tell whether a summary of the reasoning was asked for."""
    return body.reasoning is not None and body.reasoning.summary is not None


def formatted(body: Body, prompt: str) -> str | None:
    """Make the answer as JSON, when the request asks for that."""
    wanted = body.text.format if body.text else Format()
    if wanted.type == "json_schema":
        return json.dumps(voice.example(wanted.schema), ensure_ascii=False)
    if wanted.type == "json_object":
        return json.dumps({"asked": prompt, "answer": "as JSON, as you wished ✓"}, ensure_ascii=False)
    return None


def count_usage(body: Body, outcome: Outcome) -> Json:
    """Make the `usage` object."""
    turns = conversation(body)
    asked = sum(3 + voice.count(shapes.text_of(turn.content)) for turn in turns) + voice.count(body.instructions or "")
    asked += sum(100 for turn in turns for _ in shapes.seen_in(turn.content))
    asked += sum(voice.count(json.dumps(tool.schema)) for tool in functions(body))
    thinking = voice.count(outcome.thought)
    called = sum(voice.count(call.name + call.arguments) for call in outcome.calls)
    said = len(outcome.saying.pieces) + called + thinking
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": thinking},
        "total_tokens": asked + said,
    }


def document(body: Body, seed: Seed, outcome: Outcome, state: str, output: list[Json]) -> Json:
    """Make the response object in one of its states."""
    over = state not in ("in_progress", "queued")
    reasoning = body.reasoning or Reasoning()
    found: Json = {
        "id": seed.id("resp_"),
        "object": "response",
        "created_at": seed.created,
        "status": state,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if state == "incomplete" else None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": body.model,
        "output": output,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": body.tool_choice or "auto",
        "tools": [
            {"type": tool.type, "name": tool.name, "parameters": tool.parameters, "strict": True}
            for tool in body.tools or []
            if tool.type == "function"
        ],
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "usage": count_usage(body, outcome) if over else None,
        "user": body.user,
        "metadata": body.metadata or {},
    }
    return found | (filters.prompt_results(body.model) if over else {})


def items(seed: Seed, outcome: Outcome) -> list[Json]:
    """Make the finished output items."""
    found = [reasoning_item(seed, outcome.thought)] if outcome.thought else []
    if outcome.calls:
        return found + [call_item(seed, call, call.arguments, "completed") for call in outcome.calls]
    part = text_part(outcome.saying.text)
    return [*found, message_item(seed, [part], status(outcome))]


def reasoning_item(seed: Seed, thought: str) -> Json:
    """Make a reasoning item with its summary."""
    summary = [{"type": "summary_text", "text": thought}] if thought else []
    return {"id": seed.id("rs_"), "type": "reasoning", "summary": summary}


def call_item(seed: Seed, call: voice.ToolCall, arguments: str, state: str) -> Json:
    """Make a function call item."""
    return {
        "id": seed.id("fc_", call.id),
        "type": "function_call",
        "status": state,
        "arguments": arguments,
        "call_id": call.id,
        "name": call.name,
    }


def message_item(seed: Seed, parts: list[Json], state: str) -> Json:
    """Make a message item."""
    return {"id": seed.id("msg_"), "type": "message", "status": state, "role": "assistant", "content": parts}


def text_part(text: str) -> Json:
    """Make a text part."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class Events:
    """The event sequence of one streamed response; numbers the events as they are made."""

    def __init__(self, body: Body, seed: Seed, outcome: Outcome) -> None:
        self.body = body
        self.seed = seed
        self.outcome = outcome
        self.made = 0

    def make(self, kind: str, /, **members: object) -> bytes:
        """One numbered event."""
        self.made += 1
        return event({"type": kind, "sequence_number": self.made - 1, **members})

    def stream(self) -> Iterator[bytes]:
        """All events; a model `breaks-…` fails half-way."""
        opened = document(self.body, self.seed, self.outcome, "in_progress", [])
        yield self.make("response.created", response=opened)
        yield self.make("response.in_progress", response=opened)
        at = 0
        if self.outcome.thought:
            yield from self.reasoning(at)
            at += 1
        for number, call in enumerate(self.outcome.calls):
            yield from self.call(at + number, call)
        if not self.outcome.calls:
            pieces = self.outcome.saying.pieces
            if self.body.model.startswith("breaks-"):
                yield from self.message(at, pieces[: len(pieces) // 2], whole=False)
                failed = document(self.body, self.seed, self.outcome, "failed", [])
                failed["error"] = {"code": "server_error", "message": "The engine is currently overloaded."}
                yield self.make("response.failed", response=failed)
                return
            yield from self.message(at, pieces)
        state = status(self.outcome)
        closed = document(self.body, self.seed, self.outcome, state, items(self.seed, self.outcome))
        yield self.make(f"response.{state}", response=closed)

    def reasoning(self, at: int) -> Iterator[bytes]:
        """Make the events of the reasoning item."""
        thought = self.outcome.thought
        where: Json = {"item_id": self.seed.id("rs_"), "output_index": at, "summary_index": 0}
        yield self.make("response.output_item.added", output_index=at, item=reasoning_item(self.seed, ""))
        part: Json = {"type": "summary_text", "text": ""}
        yield self.make("response.reasoning_summary_part.added", **where, part=part)
        for piece in voice.tokens(thought):
            yield self.make("response.reasoning_summary_text.delta", **where, delta=piece)
        yield self.make("response.reasoning_summary_text.done", **where, text=thought)
        yield self.make("response.reasoning_summary_part.done", **where, part=part | {"text": thought})
        yield self.make("response.output_item.done", output_index=at, item=reasoning_item(self.seed, thought))

    def call(self, at: int, call: voice.ToolCall) -> Iterator[bytes]:
        """Make the events of one function call item."""
        where: Json = {"item_id": self.seed.id("fc_", call.id), "output_index": at}
        opened = call_item(self.seed, call, "", "in_progress")
        yield self.make("response.output_item.added", output_index=at, item=opened)
        for piece in call.pieces:
            yield self.make("response.function_call_arguments.delta", **where, delta=piece)
        yield self.make("response.function_call_arguments.done", **where, name=call.name, arguments=call.arguments)
        closed = call_item(self.seed, call, call.arguments, "completed")
        yield self.make("response.output_item.done", output_index=at, item=closed)

    def message(self, at: int, pieces: tuple[str, ...], *, whole: bool = True) -> Iterator[bytes]:
        """Make the events of the message item; without its end when it is not `whole`."""
        text = "".join(pieces)
        where: Json = {"item_id": self.seed.id("msg_"), "output_index": at, "content_index": 0}
        opened = message_item(self.seed, [], "in_progress")
        yield self.make("response.output_item.added", output_index=at, item=opened)
        yield self.make("response.content_part.added", **where, part=text_part(""))
        for piece in pieces:
            yield self.make("response.output_text.delta", **where, delta=piece, logprobs=[])
        if not whole:
            return
        yield self.make("response.output_text.done", **where, text=text, logprobs=[])
        yield self.make("response.content_part.done", **where, part=text_part(text))
        closed = message_item(self.seed, [text_part(text)], status(self.outcome))
        yield self.make("response.output_item.done", output_index=at, item=closed)
