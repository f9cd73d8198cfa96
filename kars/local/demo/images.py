"""`/v1/images/generations`: a small square in a colour drawn from the prompt, as PNG in base64."""

import base64
import struct
import zlib

import msgspec

from kars.local.demo import shapes, voice
from kars.local.demo.faults import body_error, check_model
from kars.local.demo.reply import Answer, Call, Json, Reply, encode

#: Side of every picture in pixels, whatever size was asked for.
SIDE = 16


class Body(msgspec.Struct):
    """The members of a request this server looks at."""

    model: str
    prompt: str
    n: int | None = None
    size: str | None = None


def handle(call: Call) -> Reply:
    """Answers one request."""
    body, seed = shapes.read(call, Body)
    delay = check_model(call, body.model)
    amount = 1 if body.n is None else body.n
    if not 1 <= amount <= 10:
        raise body_error(f"Invalid 'n': {amount} is not between 1 and 10.", "n", "integer_out_of_range")
    pictures: list[Json] = [
        {"b64_json": base64.b64encode(png(seed.bytes(f"colour{at}", 3))).decode()} for at in range(amount)
    ]
    asked = voice.count(body.prompt)
    usage: Json = {
        "input_tokens": asked,
        "input_tokens_details": {"text_tokens": asked, "image_tokens": 0},
        "output_tokens": 100 * amount,
        "total_tokens": asked + 100 * amount,
    }
    return Answer(200, encode({"created": seed.created, "data": pictures, "usage": usage}), delay=delay)


def png(colour: bytes) -> bytes:
    """Make a square of one RGB colour (PNG specification, sections 5 and 11.2)."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    rows = (b"\0" + colour * SIDE) * SIDE
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", zlib.compress(rows)) + block(b"IEND", b"")


def block(kind: bytes, content: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
