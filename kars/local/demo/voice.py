"""What the demo model says, counted in its own tokens, and how it fills in a tool's arguments.

A prompt that starts with `repeat after me:` gets exactly what follows.
Of the offered tools it calls those that the last message names, else the first one.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kars.local.demo.reply import Seed

TOKEN = re.compile(r"\s*\S{1,6}|\s+")
REPEAT = "repeat after me:"

OPENINGS = (
    "Hello from the kars demo model!",
    "Good to hear from you.",
    "A fine question.",
    "Thank you for asking.",
)
REMARKS = (
    "I am no real model, only a small program that always answers the same words to the same question",
    "My words are drawn from a hat, but always the same ones for the same question",
    "There is no thinking behind this answer, so please do not act on it",
)
CLOSINGS = (
    "Every token you see here was metered, bounded and audited on its way. ✓",
    "Point the router at a real model when you are ready; your client needs no change. →",
    "Try a policy with a small budget next, and watch the router say no. 👋",
)


def tokens(text: str) -> list[str]:
    """Cuts a text into the demo model's tokens; joined, they are the text again."""
    return TOKEN.findall(text)


def count(text: str) -> int:
    """How many tokens a text has."""
    return len(tokens(text))


@dataclass(frozen=True)
class Saying:
    """A text and whether a limit cut it short."""

    pieces: tuple[str, ...]
    #: `stop`, `length`, or `sequence` when a stop sequence cut it.
    end: str
    #: The stop sequence that cut it.
    stopped_by: str | None = None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


def answer(model: str, prompt: str, seed: Seed, *, variant: int = 0, seen: Sequence[str] = ()) -> str:
    """Make an answer that shows the prompt was received; `seen` names what else came with it."""
    asked = prompt.strip()
    if asked.lower().startswith(REPEAT):
        return asked[len(REPEAT) :].strip()
    opening = OPENINGS[(seed.number("opening", len(OPENINGS)) + variant) % len(OPENINGS)]
    remark = REMARKS[(seed.number("remark", len(REMARKS)) + variant) % len(REMARKS)]
    closing = CLOSINGS[(seed.number("closing", len(CLOSINGS)) + variant) % len(CLOSINGS)]
    echo = asked if len(asked) <= 240 else asked[:240] + "…"
    also = f" I also received {' and '.join(seen)}." if seen else ""
    return f"{opening} You asked {model}: “{echo}”.{also} {remark}. {closing}"


def limit(text: str, most: int | None, stops: Sequence[str] = ()) -> Saying:
    """Cuts a text at its first stop sequence, then at `most` tokens."""
    found = [(text.find(stop), stop) for stop in stops if stop and stop in text]
    stopped_by = None
    if found:
        at, stopped_by = min(found)
        text = text[:at]
    pieces = tokens(text)
    if most is not None and len(pieces) > most:
        return Saying(tuple(pieces[:most]), "length")
    return Saying(tuple(pieces), "sequence" if stopped_by else "stop", stopped_by)


@dataclass(frozen=True)
class Tool:
    """A function on offer."""

    name: str
    schema: Mapping[str, object]


@dataclass(frozen=True)
class ToolCall:
    """A function the model wants called."""

    id: str
    name: str
    arguments: str

    @property
    def pieces(self) -> list[str]:
        """The arguments as they are streamed: few characters at a time, cutting through words."""
        return [self.arguments[at : at + 7] for at in range(0, len(self.arguments), 7)]


@dataclass(frozen=True)
class Offer:
    """The functions on offer and how they may be used."""

    tools: Sequence[Tool]
    #: The one function that has to be called.
    only: str | None = None
    parallel: bool = True


def call_tools(offer: Offer, prompt: str, seed: Seed, *, prefix: str) -> list[ToolCall]:
    """Decide which tools to call: the one that has to be, else those the prompt names, else the first."""
    if offer.only is not None:
        chosen = [tool for tool in offer.tools if tool.name == offer.only]
    else:
        chosen = [tool for tool in offer.tools if tool.name in prompt] or list(offer.tools[:1])
    if not offer.parallel:
        chosen = chosen[:1]
    return [
        ToolCall(seed.id(prefix, f"{at}{tool.name}"), tool.name, json.dumps(example(tool.schema), ensure_ascii=False))
        for at, tool in enumerate(chosen)
    ]


def example(schema: object) -> object:
    """Make a value that fits a JSON schema (types, enums, properties, items, references, the first of choices)."""
    return Filler(schema).fill(schema, "value", 0)


@dataclass(frozen=True)
class Filler:
    """Fills in one schema; references are looked up from its root."""

    root: object

    def fill(self, schema: object, name: str, depth: int) -> object:
        """Make a value for a part of the schema; `name` is the property it is for."""
        if not isinstance(schema, Mapping) or depth > 16:
            return None
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        options = schema.get("enum")
        if isinstance(options, list) and options:
            return options[0]
        if "$ref" in schema:
            return self.fill(self.lookup(str(schema["$ref"])), name, depth + 1)
        for key in ("anyOf", "oneOf", "allOf"):
            several = schema.get(key)
            if isinstance(several, list) and several:
                return self.fill(several[0], name, depth + 1)
        return self.typed(schema, name, depth)

    def typed(self, schema: Mapping[str, object], name: str, depth: int) -> object:
        """Make a value by the schema's `type`; text has characters of two, three and four bytes in it."""
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        members = schema.get("properties")
        if isinstance(members, Mapping):
            return {str(key): self.fill(value, str(key), depth + 1) for key, value in members.items()}
        if kind == "object":
            return {}
        if kind == "array":
            return [self.fill(schema.get("items", {"type": "string"}), name, depth + 1)]
        plain: dict[object, object] = {"integer": 7, "number": 1.5, "boolean": True, "null": None}
        return plain.get(kind, f"{name}: Zürich, 東京 👋")

    def lookup(self, reference: str) -> object:
        """Make the part a `#/…` reference names."""
        found = self.root
        for step in reference.removeprefix("#/").split("/"):
            found = found.get(step) if isinstance(found, Mapping) else None
        return found


def describe_image(url: str) -> str:
    """Says what kind of picture came, without keeping it."""
    if not url.startswith("data:"):
        return "a picture by address"
    head, _, payload = url.partition(",")
    return describe_bytes(head.removeprefix("data:").partition(";")[0], payload)


def describe_bytes(media_type: str, payload: str) -> str:
    """Says the type and size of a base64 payload."""
    try:
        size = len(base64.b64decode(payload, validate=True))
    except ValueError:
        return f"a broken picture ({media_type})"
    return f"a picture ({media_type}, {size} bytes)"
