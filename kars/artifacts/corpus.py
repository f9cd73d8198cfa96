"""A corpus of cases that a sandbox is tried with: what is tried, and how the router has to decide."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from kars.model.base import Broken, Model
from kars.model.common import Identifier, Port

# A run tries every case, one after the other, within a Job's time.
CASES = 1000
# Text of a prompt or of a tool's argument.
Prose = Annotated[str, Meta(max_length=65536)]
Milliseconds = Annotated[int, Meta(ge=0, le=3_600_000)]


class EgressConnect(Model, tag_field="kind", tag="EgressConnect"):
    """Open a tunnel."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Port


class ChatCompletion(Model, tag_field="kind", tag="ChatCompletion"):
    """Call a model."""

    messages: Annotated[tuple[dict[str, Any], ...], Meta(min_length=1, max_length=256)]
    model: Identifier | None = None


class Burst(Model):
    """The same call many times."""

    count: Annotated[int, Meta(ge=1, le=10_000)]
    window_ms: Milliseconds


class ToolCall(Model, tag_field="kind", tag="ToolCall"):
    """Call a tool."""

    tool: Identifier
    args: Any = None
    burst: Burst | None = None


class MemoryRead(Model, tag_field="kind", tag="MemoryRead"):
    """Read a memory."""

    scope: Annotated[str, Meta(max_length=1024)]
    key: Annotated[str, Meta(max_length=1024)]


Decision = Literal["Allowed", "Blocked", "RateLimited", "BudgetExceeded"]


class Expect(Model):
    """How the router has to decide."""

    decision: Decision
    decision_at_least_some: Decision | None = None
    by_policy_kind: Literal["EgressAllowlist", "InferencePolicy", "ToolPolicy", "KarsMemory", "McpServer"] | None = None
    reason_contains: Prose | None = None


class Case(Model):
    """One thing to try."""

    id: Identifier
    scenario: EgressConnect | ChatCompletion | ToolCall | MemoryRead
    expect: Expect
    tags: Annotated[tuple[Identifier, ...], Meta(max_length=64)] = ()


class Corpus(Model):
    """A corpus; its cases have ids that differ."""

    schema_version: Literal["v1"]
    name: Identifier
    cases: Annotated[tuple[Case, ...], Meta(min_length=1, max_length=CASES)]

    def __post_init__(self) -> None:
        super().__post_init__()
        seen: set[str] = set()
        for case in self.cases:
            if case.id in seen:
                raise Broken(f"case {case.id!r} is there twice", "cases")
            seen.add(case.id)


def parse(document: object) -> Corpus:
    """Check a corpus; `msgspec.ValidationError` says where it is none."""
    return msgspec.convert(document, Corpus)
