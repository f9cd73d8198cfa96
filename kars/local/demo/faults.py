"""Refusals in each dialect's shape, and the model names that ask for one.

| Model name | What it does |
|---|---|
| `missing-…` | 404, unknown model |
| `unauthorized`, `forbidden`, `conflict`, `unprocessable` | 401, 403, 409, 422 |
| `rate-limited` | 429 with `retry-after` and the limit headers |
| `overloaded` | 503 (OpenAI), 529 (Anthropic) |
| `server-error` | 500 |
| `flaky-<n>` | 503 until the SDK's own retry counter has reached n, then an answer |
| `slow-<ms>` | an answer, after that many milliseconds |
| `breaks-…` | a stream that stops half-way with the dialect's error event |
| `filtered` | Azure's content-filter refusal |
| `annotated-<severity>` | an answer with Azure's filter annotations at that severity (see `filters`) |
"""

from dataclasses import dataclass, replace

from kars.local.demo.filters import refusal_details
from kars.local.demo.reply import Answer, Call, Dialect, Json, Seed, data, encode, event


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault of ours
    """A request this server answers with an error."""

    status: int
    message: str
    #: OpenAI's `type`; Anthropic's follows from the status.
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    inner: Json | None = None


ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    529: "overloaded_error",
}

NAMED = {
    "unauthorized": Refusal(401, "Incorrect API key provided.", code="invalid_api_key"),
    "forbidden": Refusal(403, "This key may not use this model.", kind="permission_error", code="forbidden"),
    "conflict": Refusal(409, "The request conflicts with another one.", code="conflict"),
    "unprocessable": Refusal(422, "The request cannot be processed.", code="unprocessable_entity"),
    "rate-limited": Refusal(
        429,
        "Rate limit reached for requests. Please try again in 1s.",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers=(("retry-after", "1"), ("retry-after-ms", "1000")),
    ),
    "overloaded": Refusal(503, "The engine is currently overloaded.", kind="server_error", code="overloaded"),
    "server-error": Refusal(500, "The server had an error processing your request.", kind="server_error"),
}


def body_error(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """Make a 400 for a body that does not fit."""
    return Refusal(400, message, param=param, code=code)


def check_model(call: Call, model: str) -> float:
    """Raise the `Refusal` the model's name asks for; return the seconds to wait otherwise."""
    if model in NAMED:
        raise replace(NAMED[model])
    if model.startswith("missing-"):
        raise unknown_model(model)
    if model == "filtered":
        raise filtered()
    word, _, number = model.partition("-")
    if not number.isdigit():
        return 0.0
    if word == "flaky" and call.retries < int(number):
        raise Refusal(503, "Try again.", kind="server_error", code="flaky", headers=(("retry-after-ms", "5"),))
    return min(int(number), 60_000) / 1000 if word == "slow" else 0.0


def unknown_model(model: str) -> Refusal:
    """Make the 404 for a model nobody serves."""
    text = f"The model `{model}` does not exist or you do not have access to it."
    return Refusal(404, text, code="model_not_found")


def filtered() -> Refusal:
    """Azure's refusal of a prompt its content filter stopped."""
    text = (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        "Please modify your prompt and retry."
    )
    return Refusal(400, text, param="prompt", code="content_filter", inner=refusal_details())


def error_object(refusal: Refusal, dialect: Dialect, request_id: str) -> Json:
    """Make the error document in the dialect's shape."""
    if dialect is Dialect.ANTHROPIC:
        kind = ANTHROPIC_KINDS.get(refusal.status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": request_id}
    inside: Json = {
        "message": refusal.message,
        "type": refusal.kind,
        "param": refusal.param,
        "code": refusal.code,
    }
    if refusal.inner is not None:
        inside |= {"status": refusal.status, "innererror": refusal.inner}
    return {"error": inside}


def render(refusal: Refusal, dialect: Dialect, seed: Seed) -> Answer:
    """Make the response that carries a refusal."""
    status = refusal.status
    if dialect is Dialect.ANTHROPIC and status == 503:
        status = 529
    return Answer(status, encode(error_object(refusal, dialect, seed.id("req_"))), refusal.headers)


def break_event(dialect: Dialect, seed: Seed) -> bytes:
    """Make the event that ends a stream which went wrong half-way."""
    refusal = Refusal(503, "The engine is currently overloaded.", kind="server_error", code="overloaded")
    document = error_object(refusal, dialect, seed.id("req_"))
    return event(document) if dialect is Dialect.ANTHROPIC else data(document)
