"""`/v1/models`, `/openai/models`, `/openai/deployments`: what this server says it has."""

from kars.local.demo.faults import unknown_model
from kars.local.demo.reply import Answer, Call, Dialect, Json, encode

#: 2024-01-01, in both spellings the services use.
RELEASED = 1_704_067_200
RELEASED_TEXT = "2024-01-01T00:00:00Z"

MODELS = (
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-4o",
    "gpt-image-1",
    "o4-mini",
    "text-embedding-3-large",
    "text-embedding-3-small",
    "claude-demo",
    "claude-opus-5",
    "claude-sonnet-5",
)


def models(call: Call) -> Answer:
    """Make the list, in the dialect the caller speaks."""
    if call.dialect is Dialect.ANTHROPIC:
        entries = [anthropic_model(name) for name in MODELS if name.startswith("claude-")]
        ends: Json = {"first_id": entries[0]["id"], "last_id": entries[-1]["id"]}
        return Answer(200, encode({"data": entries, "has_more": False} | ends))
    return Answer(200, encode({"object": "list", "data": [openai_model(name) for name in MODELS]}))


def model(call: Call, name: str) -> Answer:
    """One model; any name but `missing-…` is served."""
    if name.startswith("missing-"):
        raise unknown_model(name)
    return Answer(200, encode(anthropic_model(name) if call.dialect is Dialect.ANTHROPIC else openai_model(name)))


def openai_model(name: str) -> Json:
    """Make a model as OpenAI describes it."""
    return {"id": name, "object": "model", "created": RELEASED, "owned_by": "kars-demo"}


def anthropic_model(name: str) -> Json:
    """Make a model as Anthropic describes it."""
    return {"type": "model", "id": name, "display_name": name.replace("-", " ").title(), "created_at": RELEASED_TEXT}


def deployments(_: Call) -> Answer:
    """Make the deployments of an Azure resource: each model under its own name."""
    entries: list[Json] = [
        {
            "id": name,
            "object": "deployment",
            "model": name,
            "owner": "kars-demo",
            "status": "succeeded",
            "created_at": RELEASED,
        }
        for name in MODELS
    ]
    return Answer(200, encode({"object": "list", "data": entries}))
