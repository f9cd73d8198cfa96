"""KarsEval: the corpus as the runner reads it, and the report that the runner writes."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from kars.model.base import Model
from kars.model.evaluation import KarsEval
from kars.policy.compiled.canonical import pretty
from kars.policy.compiled.corpora import CASES
from kars.policy.compiled.outcome import Compiled, Given, Unfit, config_map, namespace_of, owner

FILE = "corpus.json"
# Cases of one corpus: a run of more would outlast the interval of any schedule.
MOST_CASES = 4096

Text = Annotated[str, Meta(min_length=1, max_length=1024)]
Outcome = Literal["Allowed", "Blocked", "RateLimited", "BudgetExceeded"]


class EgressConnect(Model, tag="EgressConnect", tag_field="kind"):
    """A connection through the egress proxy."""

    host: Text
    port: Annotated[int, Meta(ge=1, le=65535)]


class ChatCompletion(Model, tag="ChatCompletion", tag_field="kind"):
    """A model call."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=256)]
    model: Text | None = None


class Burst(Model):
    """Calls in quick succession."""

    count: Annotated[int, Meta(ge=1, le=100_000)]
    window_ms: Annotated[int, Meta(ge=1, le=3_600_000)]


class ToolCall(Model, tag="ToolCall", tag_field="kind"):
    """A call of a tool."""

    tool: Text
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    burst: Burst | None = None


class MemoryRead(Model, tag="MemoryRead", tag_field="kind"):
    """Reading a memory."""

    scope: Annotated[str, Meta(max_length=1024)]
    key: Annotated[str, Meta(max_length=1024)]


class Expect(Model):
    """What has to come of it."""

    decision: Outcome
    decision_at_least_some: Outcome | None = None
    by_policy_kind: Literal["EgressAllowlist", "InferencePolicy", "ToolPolicy", "KarsMemory", "McpServer"] | None = None
    reason_contains: Text | None = None


class Case(Model):
    """Something that is tried."""

    id: Text
    scenario: EgressConnect | ChatCompletion | ToolCall | MemoryRead
    expect: Expect
    tags: Annotated[list[Text], Meta(max_length=64)] = msgspec.field(default_factory=list)


class Cases(Model):
    """A corpus."""

    schema_version: Literal["v1"]
    name: Text
    cases: Annotated[list[Case], Meta(min_length=1, max_length=MOST_CASES)]


def parse(body: bytes) -> Cases:
    """Read a corpus; `Unfit` (CorpusParseFailed) says where it is wrong."""
    try:
        corpus = msgspec.json.decode(body, type=Cases)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unfit("CorpusParseFailed", f"the corpus is not valid: {error}") from None
    seen: set[str] = set()
    for one in corpus.cases:
        if one.id in seen:
            raise Unfit("CorpusParseFailed", f"the case {one.id!r} is there twice")
        seen.add(one.id)
    return corpus


def builtin(name: str) -> bytes:
    """Return a corpus that comes with kars; `Unfit` (CorpusBuiltinMissing) names those that there are."""
    cases = CASES.get(name)
    if cases is None:
        raise Unfit("CorpusBuiltinMissing", f"there is no corpus {name!r}, but {', '.join(sorted(CASES))}")
    return pretty({"schemaVersion": "v1", "name": name, "cases": cases})


def corpus(evaluation: KarsEval, given: Given) -> tuple[bytes, str, str]:
    """Return the corpus's bytes, its digest (of an artifact, the artifact's) and its label."""
    wanted = evaluation.spec.corpus
    if wanted.bundle_ref is None:
        body = builtin(wanted.builtin or "")
        return body, f"sha256:{sha256(body).hexdigest()}", f"builtin:{wanted.builtin}"
    if not given.body:
        raise Unfit("CorpusFetchFailed", "the corpus's artifact has not been fetched")
    reference = wanted.bundle_ref
    return given.body, reference.digest, f"{reference.registry}/{reference.repository}@{reference.digest}"


def render(evaluation: KarsEval, given: Given) -> Compiled:
    """Return the ConfigMap `karseval-<name>-corpus`, which goes with the KarsEval; `digest` is the corpus's."""
    body, stamp, label = corpus(evaluation, given)
    parse(body)
    name = f"karseval-{evaluation.metadata.name}-corpus"
    made = config_map(
        name,
        namespace=namespace_of(evaluation, given),
        labels={"karseval": evaluation.metadata.name, "artifact": "claw-eval-corpus"},
        annotations={"karseval-corpus-digest": stamp, "karseval-corpus-label": label},
        data={FILE: body},
    )
    made["metadata"]["ownerReferences"] = [owner(evaluation)]
    return Compiled(objects=(made,), digest=stamp, status={"corpusConfigMapRef": {"name": name}, "corpusDigest": stamp})


class Verdict(msgspec.Struct, frozen=True):
    """What came of a case."""

    result: str


class Tried(msgspec.Struct, frozen=True, rename="camel"):
    """A case of a report."""

    case_id: str
    verdict: Verdict


Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """What the runner says of a run; members that are not here are passed over."""

    schema_version: Annotated[str, Meta(min_length=1, max_length=64)]
    total: Number
    passed: Number
    failed: Number
    results: Annotated[tuple[Tried, ...], Meta(max_length=MOST_CASES)] = ()

    # Results that are neither a pass nor a failure of the sandbox: the case could not be tried.
    ERRORED: ClassVar[frozenset[str]] = frozenset({"Error", "Errored"})

    @property
    def errored(self) -> int:
        """How many cases could not be tried, or are told nothing of."""
        said = sum(one.verdict.result in self.ERRORED for one in self.results)
        return max(said, self.total - self.passed - self.failed)

    def failing(self, most: int = 5) -> tuple[str, ...]:
        """Return the ids of the first cases that did not pass, each cut to a readable length."""
        return tuple(one.case_id[:253] for one in self.results if one.verdict.result != "Pass")[:most]


# What is read of a pod's log, from its end: a report of the most cases, each with some hundred bytes.
LOG_BYTES = 4 * 1024 * 1024
# Places at which a report could begin that are tried, the last first.
BEGINNINGS = 64


def report(log: bytes) -> Report | None:
    """Return the last report in a pod's log, which begins a line; None when there is none.

    Bounded: only the log's end, and only so many lines that begin with `{`. A report that contradicts itself is none.
    """
    text = "\n" + log[-LOG_BYTES:].decode(errors="replace")
    at = len(text)
    for _ in range(BEGINNINGS):
        at = text.rfind("\n{", 0, at)
        found = report_at(text, at + 1) if at >= 0 else None
        if at < 0 or found is not None:
            return found
    return None


def report_at(text: str, at: int) -> Report | None:
    """Return the report that begins at a place, if one does."""
    from json import JSONDecoder

    try:
        value, _ = JSONDecoder().raw_decode(text, at)
        found = msgspec.convert(value, Report)
    except (ValueError, RecursionError):
        return None
    passes = sum(one.verdict.result == "Pass" for one in found.results)
    consistent = found.passed + found.failed <= found.total and found.passed <= (
        passes if found.results else found.total
    )
    return found if consistent else None
