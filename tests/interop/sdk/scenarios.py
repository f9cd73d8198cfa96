"""The table of scenarios, and how an outcome becomes a value that can be compared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anthropic
import openai
import pydantic

from tests.interop.sdk.clients import Clients

#: Fields that belong to one hop or to kars itself: not part of what the service said.
TRANSPORT_FIELDS = {
    "cache-control",
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "server",
    "transfer-encoding",
    "x-accel-buffering",
}

Run = Callable[[Clients], object]


@dataclass(frozen=True)
class Scenario:
    """One use of an SDK; what it returns must not depend on the router being there."""

    name: str
    run: Run


SCENARIOS: list[Scenario] = []


def scenario(run: Run) -> Run:
    """Adds a function to the table under its own name."""
    name = run.__name__
    assert name not in {known.name for known in SCENARIOS}
    SCENARIOS.append(Scenario(name, run))
    return run


def plain(value: object) -> object:
    """Turns what an SDK returned into comparable values, leaving nothing out."""
    if isinstance(value, pydantic.BaseModel):
        request_id = getattr(value, "_request_id", None)
        dumped = value.model_dump(warnings=False)
        return {"model": dumped, "request_id": request_id} if request_id else dumped
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def headers(found: Mapping[str, str]) -> dict[str, str]:
    """What the service's own headers say."""
    kept = {name.lower(): value for name, value in found.items()}
    return {
        name: value for name, value in kept.items() if name not in TRANSPORT_FIELDS and not name.startswith("x-kars-")
    }


def outcome(run: Run, clients: Clients) -> object:
    """What a scenario returns or raises, as a value."""
    try:
        return plain(run(clients))
    except (openai.APIError, anthropic.APIError) as error:
        return failure(error)
    finally:
        clients.close()


def failure(error: openai.APIError | anthropic.APIError) -> dict[str, object]:
    """An SDK's exception with all it tells an application."""
    found: dict[str, object] = {
        "raised": f"{type(error).__module__}.{type(error).__name__}",
        "message": error.message,
        "body": error.body,
        "code": getattr(error, "code", None),
        "param": getattr(error, "param", None),
        "type": getattr(error, "type", None),
    }
    if isinstance(error, openai.APIStatusError | anthropic.APIStatusError):
        found |= {
            "status": error.status_code,
            "request_id": error.request_id,
            "headers": headers(error.response.headers),
        }
    return found


def raised(call: Callable[[], object]) -> dict[str, object]:
    """The exception a call raises; fails when it raises none."""
    try:
        value = call()
    except (openai.APIError, anthropic.APIError) as error:
        return failure(error)
    message = f"expected an error, got {value!r}"
    raise AssertionError(message)
