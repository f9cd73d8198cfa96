"""KarsEval: a corpus of cases that a sandbox must pass, now and by schedule."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc
from kars.model.common import (
    Conditions,
    Count,
    DisplayName,
    Identifier,
    Image,
    NameRef,
    ObservedGeneration,
    OciArtifactRef,
    SandboxRef,
    Time,
    Words,
)


class CorpusBundleRef(OciArtifactRef):
    """A signed corpus."""

    artifact_type: Annotated[Literal["application/vnd.kars.eval-corpus.v1+json"], doc("Media type of the artifact.")]


class Corpus(Model):
    """Where the cases come from."""

    builtin: Annotated[Identifier | None, doc("Name of a corpus that comes with kars.")] = None
    bundle_ref: Annotated[CorpusBundleRef | None, doc("A signed corpus.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.builtin) != has(self.bundleRef)",
            "corpus needs exactly one of builtin and bundleRef",
            lambda self: (self.builtin is None) != (self.bundle_ref is None),
        ),
    )


class KarsEvalSpec(Model):
    """What is tried, on whom, and when."""

    corpus: Annotated[Corpus, doc("Where the cases come from.")]
    target_sandbox_ref: Annotated[SandboxRef, doc("The sandbox that is tried.")]
    schedule: Annotated[
        Annotated[str, Meta(max_length=256, pattern=r"^[!-~]+( +[!-~]+){4}\Z")] | None,
        doc("When, as five fields of cron; only on demand (annotation kars.azure.com/run-now) when absent."),
    ] = None
    fail_sandbox_on_drift: Annotated[bool, doc("Whether a failed case degrades the sandbox.")] = False
    runner_image: Annotated[Image | None, doc("Image of the runner; the controller's default when absent.")] = None
    display_name: Annotated[DisplayName | None, doc("A name for people.")] = None


class EvalRun(Model):
    """A run that ended."""

    at: Annotated[Time | None, doc("When it ended.")] = None
    corpus_digest: Annotated[Words | None, doc("Digest of the corpus.")] = None
    total: Annotated[Count | None, doc("Cases.")] = None
    passed: Annotated[Count | None, doc("Cases that passed.")] = None
    failed: Annotated[Count | None, doc("Cases that failed.")] = None
    errored: Annotated[Count | None, doc("Cases that could not be tried.")] = None
    job_name: Annotated[Words | None, doc("The Job that ran it.")] = None


class EvalResult(Model):
    """The last run in more words."""

    schema_version: Annotated[Words | None, doc("Version of the runner's report.")] = None
    corpus_digest: Annotated[Words | None, doc("Digest of the corpus.")] = None
    corpus_label: Annotated[Words | None, doc("Name of the corpus.")] = None
    total: Annotated[Count | None, doc("Cases.")] = None
    passed: Annotated[Count | None, doc("Cases that passed.")] = None
    failed: Annotated[Count | None, doc("Cases that failed.")] = None
    errored: Annotated[Count | None, doc("Cases that could not be tried.")] = None
    job_name: Annotated[Words | None, doc("The Job that ran it.")] = None
    first_failing_cases: Annotated[
        Annotated[tuple[Words, ...], Meta(max_length=5)], doc("Ids of the first cases that failed.")
    ] = ()


class KarsEvalStatus(Model):
    """What is known of the runs."""

    phase: Annotated[Literal["Pending", "Running", "Ready", "Degraded"] | None, doc("A summary for people.")] = None
    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    corpus_config_map_ref: Annotated[NameRef | None, doc("The ConfigMap of the corpus.")] = None
    corpus_digest: Annotated[Words | None, doc("Digest of the corpus.")] = None
    cron_job_name: Annotated[Words | None, doc("The CronJob of the schedule.")] = None
    last_run_at: Annotated[Time | None, doc("When the last run ended.")] = None
    last_result: Annotated[EvalResult | None, doc("The last run.")] = None
    history: Annotated[Annotated[tuple[EvalRun, ...], Meta(max_length=20)], doc("Runs, newest first.")] = ()


class KarsEval(Resource):
    """A corpus of cases that a sandbox must pass, now and by schedule."""

    NAMES: ClassVar[Names] = Names(
        plural="karsevals",
        short="ceval",
        columns=(
            Column("Sandbox", ".spec.targetSandboxRef.name"),
            Column("Schedule", ".spec.schedule"),
            PHASE,
            Column("LastRun", ".status.lastRunAt", "date"),
            Column("Passed", ".status.lastResult.passed", "integer"),
            Column("Failed", ".status.lastResult.failed", "integer"),
            AGE,
            *WHY,
        ),
    )

    spec: Annotated[KarsEvalSpec, doc("What is wanted.")]
    status: Annotated[KarsEvalStatus | None, doc("What is.")] = None
