"""Reading request bodies: strict about the members that are used, silent about all others."""

from typing import TypeVar

import msgspec

from kars.local.demo.faults import body_error
from kars.local.demo.reply import Call, Seed
from kars.local.demo.voice import describe_image

Shape = TypeVar("Shape")


class Image(msgspec.Struct):
    """Where a picture is."""

    url: str = ""


class Part(msgspec.Struct):
    """One part of a message's content, of chat (`text`) or Responses (`input_text`)."""

    type: str
    text: str | None = None
    image_url: Image | str | None = None
    refusal: str | None = None


#: Content of a message: plain text or parts.
Content = str | list[Part] | None

TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
IMAGE_PARTS = ("image_url", "input_image")
OTHER_PARTS = {"input_audio": "a sound", "file": "a file", "input_file": "a file"}


def read(call: Call, shape: type[Shape]) -> tuple[Shape, Seed]:
    """Decode the body and digests the request; raises a `Refusal` (400) when it does not fit."""
    try:
        parsed = msgspec.json.decode(call.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise body_error("We could not parse the JSON body of your request.") from None
    if not isinstance(parsed, dict):
        raise body_error("The body must be a JSON object.")
    if call.deployment is not None:
        parsed["model"] = call.deployment
    if "model" not in parsed:
        raise body_error("you must provide a model parameter", "model", "missing_required_parameter")
    try:
        return msgspec.convert(parsed, shape), Seed.of(call.operation, parsed)
    except msgspec.ValidationError as wrong:
        text, _, path = str(wrong).partition(" - at ")
        raise body_error(f"Invalid body: {text}", path.strip("`").removeprefix("$.") or None, "invalid_value") from None


def text_of(content: Content) -> str:
    """Make the text of a message; raises a `Refusal` (400) for a part of unknown type."""
    if content is None or isinstance(content, str):
        return content or ""
    found = []
    for part in content:
        if part.type in TEXT_PARTS:
            found.append(part.text or part.refusal or "")
        elif part.type not in IMAGE_PARTS and part.type not in OTHER_PARTS:
            raise body_error(f"Invalid value: '{part.type}'.", "messages", "invalid_value")
    return "\n".join(found)


def seen_in(content: Content) -> list[str]:
    """Names what came besides text."""
    if content is None or isinstance(content, str):
        return []
    found = []
    for part in content:
        if part.type in IMAGE_PARTS:
            image = part.image_url
            found.append(describe_image(image.url if isinstance(image, Image) else image or ""))
        elif part.type in OTHER_PARTS:
            found.append(OTHER_PARTS[part.type])
    return found


def stops(given: str | list[str] | None) -> list[str]:
    """Stop sequences as a list."""
    return [given] if isinstance(given, str) else given or []


def texts(given: str | list[str | int | list[int]]) -> list[str]:
    """One text, several, one of token numbers, or several of those, as texts."""
    if isinstance(given, str):
        return [given]
    if all(isinstance(item, int) for item in given):
        return [" ".join(str(item) for item in given)]
    return [item if isinstance(item, str) else str(item) for item in given]
