"""What an answer means: bytes to objects, statuses to errors.

Statuses and reasons are those of the API conventions (`metav1.Status`). A server's message goes into the error's text
cut to a bound; it names objects, fields and managers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kars.kube import depth
from kars.kube.errors import ApiError, Busy, Conflict, Forbidden, Gone, Invalid, Missing
from kars.kube.types import Object, Type

# Longer texts are lists of field errors that nobody reads to the end, and go into logs and conditions.
MESSAGE = 2048
# What a server may ask us to wait, in seconds; more is taken as this.
LONGEST_WAIT = 3600.0


class ListMeta(msgspec.Struct, rename="camel"):
    """What a collection says of itself."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, rename="camel"):
    """One page of a collection."""

    metadata: ListMeta
    items: list[Object] | None = None
    api_version: str = ""
    kind: str = ""


class Event(msgspec.Struct):
    """One line of a watch."""

    type: str
    object: Object


class Details(msgspec.Struct, rename="camel"):
    """Where in a status the wait stands."""

    retry_after_seconds: int | None = None


class Status(msgspec.Struct):
    """Why a request did not succeed."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: Details | None = None


OBJECT = msgspec.json.Decoder(Object)
PAGE = msgspec.json.Decoder(Page)
EVENT = msgspec.json.Decoder(Event)
STATUS = msgspec.json.Decoder(Status)

CLASSES: Mapping[int, type[ApiError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: Missing,
    409: Conflict,
    410: Gone,
    413: Invalid,
    422: Invalid,
}
# What is said of an account that the API server does not take; it says only "Unauthorized" itself.
UNAUTHORIZED = 401
UNKNOWN = "the API server does not know the account"
EXPIRED = (
    "its token or certificate is wrong or has expired; --kubeconfig FILE and --context NAME choose another account"
)
BUSY = frozenset({408, 425, 429})


def read(decoder: msgspec.json.Decoder[Any], raw: bytes) -> Any:  # noqa: ANN401 - what the decoder makes
    """Decode an answer; `Busy` for what is no JSON of that shape, because no API server says so.

    Of an object that is nested too deep (`depth`), the members that are say so, and the others are as they came.
    """
    try:
        try:
            return decoder.decode(raw)
        except RecursionError:
            return shallow(decoder.decode(depth.cut(raw)))
    except (ValueError, RecursionError) as error:
        raise Busy(f"the answer is not what an API server says: {type(error).__name__}", reason="BadAnswer") from None


def shallow(found: Any) -> Any:  # noqa: ANN401 - what a decoder made
    """Have every object of an answer say where it was cut."""
    if isinstance(found, Page):
        return msgspec.structs.replace(found, items=[depth.shallow(one) for one in found.items or ()])
    if isinstance(found, Event):
        return msgspec.structs.replace(found, object=depth.shallow(found.object))
    return depth.shallow(found)


def whole(value: Object, kind: Type, *, named: bool = True) -> Object:
    """Return an object of a list or watch with its apiVersion and kind, which lists leave out; `Busy` if it is none."""
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or (named and not isinstance(metadata.get("name"), str)):
        raise Busy(f"what came for {kind.plural} is no object", reason="BadAnswer")
    value.setdefault("apiVersion", kind.api_version)
    value.setdefault("kind", kind.kind)
    return value


def error(status: int, raw: bytes, *, after: str = "", what: str = "") -> ApiError:
    """Make the error of an answer; `after` is its Retry-After, `what` says which request it was."""
    try:
        said = STATUS.decode(raw)
    except (ValueError, RecursionError):
        said = Status(message=raw[:200].decode("utf-8", "replace"))
    return refused(status, said, after=after, what=what)


def refused(status: int, said: Status, *, after: str = "", what: str = "") -> ApiError:
    """Make the error of a status."""
    text = said.message[:MESSAGE] or said.reason or f"HTTP {status}"
    if status == UNAUTHORIZED and text == "Unauthorized":
        text = UNKNOWN
    message = f"{what}: {text}" if what else text
    if status >= 500 or status in BUSY:
        return Busy(message, status=status, reason=said.reason, after=pause(after, said))
    hint = EXPIRED if status == UNAUTHORIZED else ""
    return CLASSES.get(status, ApiError)(message, status=status, reason=said.reason, hint=hint)


def pause(after: str, said: Status | None = None) -> float | None:
    """Return how many seconds the server asks to wait; None when it does not say (dates count as not said)."""
    if after.isascii() and after.isdigit() and len(after) < 10:
        return min(float(after), LONGEST_WAIT)
    seconds = said.details.retry_after_seconds if said and said.details else None
    return min(max(float(seconds), 0.0), LONGEST_WAIT) if seconds is not None else None


def interrupted(value: Object) -> ApiError:
    """Make the error that a watch's ERROR event stands for: `Gone` for 410, else `Busy`."""
    try:
        said = msgspec.convert(value, Status)
    except ValueError:
        said = Status(message="the watch was ended by an error")
    if said.code == 410:
        return refused(410, said, what="watch")
    return Busy(
        f"watch: {said.message[:MESSAGE] or said.reason}", status=said.code, reason=said.reason, after=pause("", said)
    )
