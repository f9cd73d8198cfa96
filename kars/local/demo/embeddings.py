"""`/v1/embeddings`: unit vectors drawn from the text's digest."""

import base64
import hashlib
import math
import struct

import msgspec

from kars.local.demo import shapes, voice
from kars.local.demo.faults import body_error, check_model
from kars.local.demo.reply import Answer, Call, Json, Reply, encode

#: Vector length when a request names none.
DIMENSIONS = 1536
LARGE_DIMENSIONS = 3072


class Body(msgspec.Struct):
    """The members of a request this server looks at."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = None
    dimensions: int | None = None


def handle(call: Call) -> Reply:
    """Answers one request."""
    body, _ = shapes.read(call, Body)
    delay = check_model(call, body.model)
    if body.encoding_format not in (None, "float", "base64"):
        raise body_error(f"Invalid encoding_format: {body.encoding_format}", "encoding_format", "invalid_value")
    size = body.dimensions or (LARGE_DIMENSIONS if "large" in body.model else DIMENSIONS)
    if not 1 <= size <= LARGE_DIMENSIONS:
        raise body_error(f"Invalid dimensions: {size}", "dimensions", "integer_out_of_range")
    texts = inputs(body.input)
    entries: list[Json] = [
        {"object": "embedding", "index": at, "embedding": packed(vector(text, size), body.encoding_format)}
        for at, text in enumerate(texts)
    ]
    asked = sum(voice.count(text) for text in texts)
    usage: Json = {"prompt_tokens": asked, "total_tokens": asked}
    return Answer(200, encode({"object": "list", "data": entries, "model": body.model, "usage": usage}), delay=delay)


def inputs(given: str | list[str | int | list[int]]) -> list[str]:
    """Make the texts to embed; raises a `Refusal` (400) when there are none."""
    if not given:
        raise body_error("'input' must not be empty.", "input", "empty_input")
    return shapes.texts(given)


def vector(text: str, size: int) -> list[float]:
    """Make a unit vector that depends on the text only."""
    drawn = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(2 * size)
    numbers = struct.unpack(f"<{size}h", drawn)
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [number / length for number in numbers]


def packed(numbers: list[float], form: str | None) -> list[float] | str:
    """Single precision, as a list or as base64 of little-endian bytes."""
    single = struct.pack(f"<{len(numbers)}f", *numbers)
    if form == "base64":
        return base64.b64encode(single).decode()
    return list(struct.unpack(f"<{len(numbers)}f", single))
