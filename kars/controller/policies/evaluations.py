"""KarsEval: publish the corpus, run it on request and by schedule, read what came of it, tell when a sandbox drifts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from kars.artifacts.refused import Refused
from kars.controller.cluster import Cluster
from kars.controller.policies import jobs, status
from kars.controller.policies.publisher import Publisher, Unwritten, where
from kars.controller.policies.referrers import Index
from kars.controller.policies.table import EVALUATION
from kars.controller.reconcile import Temporary
from kars.desired import conditions
from kars.desired.conditions import Standing, say
from kars.desired.plan import stamp
from kars.kube import types
from kars.kube.errors import ApiError, Conflict, Missing
from kars.kube.types import CRON_JOB, JOB, POD, Key, Object
from kars.model.base import GROUP, Resource
from kars.model.evaluation import KarsEval
from kars.model.sandbox import KarsSandbox
from kars.policy.compiled import evaluation as compiled_evaluation
from kars.policy.compiled.evaluation import LOG_BYTES, Report
from kars.policy.compiled.outcome import Compiled, Given, Unfit

RUN_NOW = f"{GROUP}/run-now"
DRIFT = "ConformanceDrift"
# Who owns the condition that says it on the sandbox.
DRIFT_MANAGER = "kars-controller/karseval-drift"
# Runs that the status remembers.
HISTORY = 20
# Jobs whose report could not be read, so that they are read once only; Jobs go by themselves within a day.
MOST_UNREADABLE = 4096


# How long a log that cannot be read is tried again, and how often: a node can be away for a while.
PATIENCE, READ_AGAIN = timedelta(minutes=10), 30.0


class Trouble(msgspec.Struct, frozen=True):
    """Why there is no report of a run, and whether there may be one later."""

    reason: str
    message: str
    passing: bool = False


class Evaluations(Publisher):
    """Reconciles KarsEvals."""

    def __init__(self) -> None:
        super().__init__(EVALUATION)
        self.by_sandbox: Index[KarsEval] = Index(KarsEval, targets=target, counts=watchful)
        self.unreadable: dict[Key, Trouble] = {}

    async def gather(self, resource: Resource, cluster: Cluster) -> Given:
        """Return the corpus of an artifact; one that cannot be had is told in the kind's own words."""
        try:
            return await super().gather(resource, cluster)
        except Refused as error:
            raise Unfit("CorpusFetchFailed", f"{error.reason}: {error}") from error

    async def judge(
        self, resource: Resource, compiled: Compiled, known: dict[str, Any], cluster: Cluster
    ) -> tuple[Standing, float | None]:
        """Run what is to be run, read what has run, and tell what came of it."""
        assert isinstance(resource, KarsEval)  # noqa: S101 - the engine calls with its kind only
        label: str = compiled.objects[0]["metadata"]["annotations"][jobs.LABEL]
        image = resource.spec.runner_image or cluster.settings.conformance_image
        try:
            known["cronJobName"] = await self.schedule(resource, image, compiled.digest, label, cluster)
            started = await self.run_now(resource, image, compiled.digest, label, cluster)
        except ApiError as error:
            if error.retryable:
                raise Temporary(str(error)) from error
            raise Unwritten(f"the Job could not be made: {error}") from error
        runs = own_jobs(resource, cluster)
        remembered = status.members(resource)
        for name in ("lastRunAt", "lastResult", "history"):
            if name in remembered:
                known[name] = remembered[name]
        broken = await self.read_runs(runs, known, cluster)
        going = bool(started) or any(not ended(job) for job in runs)
        standing = told(resource, known, going=going, broken=broken)
        return standing, READ_AGAIN if broken is not None and broken.passing else None

    async def tell(
        self,
        resource: Resource,
        known: dict[str, Any],
        standing: Standing,
        cluster: Cluster,
        *,
        after: float | None,
    ) -> Any:  # noqa: ANN401 - as the publisher has it
        """Write the status, and on the sandbox whether it drifts."""
        done = await super().tell(resource, known, standing, cluster, after=after)
        assert isinstance(resource, KarsEval)  # noqa: S101 - the engine calls with its kind only
        drifting = watchful(resource) and drifts(standing.conditions)
        await self.mark(sandbox_of(resource), cluster, but=where(resource), drifting=drifting)
        return done

    # Runs

    async def schedule(self, resource: KarsEval, image: str, digest: str, label: str, cluster: Cluster) -> str | None:
        """Have the CronJob of the schedule, or none; return its name."""
        name = jobs.cron_job_name(resource)
        if resource.spec.schedule is None:
            await cluster.children.remove(CRON_JOB, Key(resource.metadata.namespace, name))
            return None
        wanted = jobs.cron_job(resource, image=image, digest=digest, label=label)
        await cluster.children.bring([stamp(wanted)], manager=self.row.field_manager)
        return name

    async def run_now(self, resource: KarsEval, image: str, digest: str, label: str, cluster: Cluster) -> str:
        """Make the Job that was asked for and take the request away; return the Job's name, empty when none was."""
        if resource.metadata.annotations.get(RUN_NOW) != "true":
            return ""
        job = jobs.run_now(resource, image=image, digest=digest, label=label)
        name: str = job["metadata"]["name"]
        # The name is this state of the resource: asking again after a failure makes no second Job.
        with contextlib.suppress(Conflict):
            await cluster.client.create(stamp(job))
        with contextlib.suppress(Missing):
            patch = {"metadata": {"annotations": {RUN_NOW: None}}}
            await cluster.client.merge(types.custom(KarsEval), where(resource), patch)
        return name

    async def read_runs(self, runs: Iterable[Object], known: dict[str, Any], cluster: Cluster) -> Trouble | None:
        """Take in the reports of Jobs that ended; return what is the matter with the last that has none."""
        history: list[Object] = list(known.get("history", ()))
        read = {one.get("jobName") for one in history}
        newest = max((one.get("at") or "" for one in history), default="")
        broken = None
        for job in sorted(filter(ended, runs), key=ended_at):
            if job["metadata"]["name"] in read:
                continue
            found = self.unreadable.get(types.key(job)) or await self.read_run(job, cluster)
            if isinstance(found, Report):
                history.insert(0, entry(job, found))
                known["lastRunAt"], known["lastResult"] = ended_at(job) or None, result(job, found)
                newest, broken = ended_at(job), None
            elif ended_at(job) > newest:
                broken = found
        if history:
            known["history"] = sorted(history, key=lambda one: str(one.get("at") or ""), reverse=True)[:HISTORY]
        return broken

    async def read_run(self, job: Object, cluster: Cluster) -> Report | Trouble:
        """Return a Job's report, or why there is none; what will not change is remembered."""
        key = types.key(job)
        try:
            report = await read_report(job, cluster)
        except ApiError as error:
            passing = late(job, cluster.now()) < PATIENCE
            found = Trouble("RunReportReadFailed", f"the log of Job {key.name} cannot be read: {error}", passing)
        else:
            if report is not None:
                return report
            found = Trouble("RunReportParseFailed", f"Job {key.name} ended and left no report")
        if not found.passing:
            if len(self.unreadable) >= MOST_UNREADABLE:
                self.unreadable.clear()
            self.unreadable[key] = found
        return found

    # Drift

    async def mark(self, target: Key, cluster: Cluster, *, but: Key, drifting: bool = False) -> None:
        """Say on a sandbox whether an evaluation that counts says that it drifts; take it back when none does.

        Of the evaluation `but` it is known whether it says so; of the others, their statuses tell.
        """
        sandbox = cluster.resource(KarsSandbox, target)
        if sandbox is None:
            return
        others = self.by_sandbox.referrers(target, cluster) - {but}
        found = [one for one in (cluster.resource(KarsEval, key) for key in others) if one is not None]
        names = [one.metadata.name for one in found if drifts(status.conditions(one))]
        if drifting:
            names.append(but.name)
        wanted: dict[str, Any] = {}
        before = status.condition(sandbox, conditions.DEGRADED)
        # What the sandbox's own reconciler says comes first: two who write one condition would never end.
        if names and (before is None or before.reason == DRIFT or before.status != "True"):
            message = f"cases of KarsEval {', '.join(sorted(names)[: conditions.DETAILS])} fail"
            condition = say(conditions.DEGRADED, "True", DRIFT, message)
            merged = conditions.merge(
                status.conditions(sandbox), [condition], generation=sandbox.metadata.generation, now=cluster.now()
            )
            wanted = {"conditions": msgspec.json.decode(msgspec.json.encode(merged))}
        await cluster.write_status(sandbox, wanted, manager=DRIFT_MANAGER)

    async def finalize(self, resource: Resource, cluster: Cluster) -> bool:
        """Take back what it says on the sandbox; Jobs, CronJob and ConfigMap go with it."""
        if isinstance(resource, KarsEval):
            await self.mark(sandbox_of(resource), cluster, but=where(resource))
        else:
            # Not valid any more, so that nobody knows whom it tried.
            for one in cluster.resources(KarsSandbox, namespace=resource.metadata.namespace):
                if any(condition.reason == DRIFT for condition in status.conditions(one)):
                    await self.mark(where(one), cluster, but=where(resource))
        return await super().finalize(resource, cluster)

    def touched(self, kind: str, key: Key, cluster: Cluster) -> set[Key]:
        """Return whose Job, CronJob or sandbox this is."""
        found = set(super().touched(kind, key, cluster))
        if kind == "KarsEval":
            self.by_sandbox.change(key, cluster)
        if kind == "KarsSandbox":
            found |= self.by_sandbox.referrers(key, cluster)
        if kind in {"Job", "CronJob"}:
            job = cluster.children.find(JOB if kind == "Job" else CRON_JOB, key)
            name = (job or {}).get("metadata", {}).get("labels", {}).get(jobs.EVALUATION)
            if name:
                found.add(Key(key.namespace, name))
            elif kind == "CronJob":
                # It went: its name says whose it was, unless that was too long for it.
                found.add(Key(key.namespace, key.name.removeprefix("karseval-")))
        return found


def sandbox_of(resource: KarsEval) -> Key:
    """Return the sandbox that is tried."""
    return Key(resource.metadata.namespace, resource.spec.target_sandbox_ref.name)


def target(resource: KarsEval, cluster: Cluster) -> tuple[Key, ...]:  # noqa: ARG001 - as every kind's
    """Return the sandbox that is tried, as an index has it."""
    return (sandbox_of(resource),)


def watchful(resource: KarsEval) -> bool:
    """Whether a failed case is to show on the sandbox."""
    return resource.spec.fail_sandbox_on_drift and resource.metadata.deletion_timestamp is None


def drifts(found: Iterable[Any]) -> bool:
    """Whether conditions say that a sandbox drifts."""
    return any(one.type == DRIFT and one.status == "True" for one in found)


def own_jobs(resource: KarsEval, cluster: Cluster) -> list[Object]:
    """Return the Jobs of an evaluation, of this very one and not of another that had its name."""
    found = cluster.children.find_all(JOB, namespace=resource.metadata.namespace)
    mine = {jobs.EVALUATION: resource.metadata.name}.items()
    uids = {resource.metadata.uid}
    scheduled = cluster.children.find(CRON_JOB, Key(resource.metadata.namespace, jobs.cron_job_name(resource)))
    if scheduled is not None:
        uids.add(scheduled["metadata"].get("uid", ""))
    return [
        job
        for _, job in found
        if mine <= (job["metadata"].get("labels") or {}).items()
        and any(one.get("uid") in uids for one in job["metadata"].get("ownerReferences") or ())
    ]


def ended(job: Object) -> bool:
    """Whether a Job has ended, well or not."""
    found = (job.get("status") or {}).get("conditions") or ()
    return any(one.get("type") in {"Complete", "Failed"} and one.get("status") == "True" for one in found)


def ended_at(job: Object) -> str:
    """Return when a Job ended; of one that failed, when it began."""
    said = job.get("status") or {}
    return str(said.get("completionTime") or said.get("startTime") or "")


def late(job: Object, now: datetime) -> timedelta:
    """Return how long ago a Job ended."""
    text = ended_at(job)
    return now - datetime.fromisoformat(text) if text else PATIENCE


async def read_report(job: Object, cluster: Cluster) -> Report | None:
    """Return the report in the log of a Job's pod; None when there is none."""
    key = types.key(job)
    pods, _ = await cluster.client.list(POD, namespace=key.namespace, labels=f"batch.kubernetes.io/job-name={key.name}")
    for pod in pods:
        log = await cluster.client.read_log(types.key(pod), container="runner", limit=LOG_BYTES)
        if (found := compiled_evaluation.report(log)) is not None:
            return found
    return None


def entry(job: Object, report: Report) -> Object:
    """Return a run as the history has it."""
    return {"at": ended_at(job) or None, **counts(job, report)}


def result(job: Object, report: Report) -> Object:
    """Return the last run in more words."""
    annotations = job["metadata"].get("annotations") or {}
    return {
        "schemaVersion": report.schema_version,
        "corpusLabel": annotations.get(jobs.LABEL, ""),
        "firstFailingCases": list(report.failing()),
        **counts(job, report),
    }


def counts(job: Object, report: Report) -> Object:
    """Return what a report counts, and which run it is of."""
    annotations = job["metadata"].get("annotations") or {}
    return {
        "corpusDigest": annotations.get(jobs.DIGEST, ""),
        "total": report.total,
        "passed": report.passed,
        "failed": report.failed,
        "errored": report.errored,
        "jobName": job["metadata"]["name"],
    }


def told(resource: KarsEval, known: dict[str, Any], *, going: bool, broken: Trouble | None) -> Standing:
    """Say how it stands."""
    last = known.get("lastResult")
    if broken is not None:
        made = conditions.degraded(broken.reason, broken.message)
    elif last is None:
        made = not_run(resource, going=going)
    elif last.get("failed", 0) or last.get("errored", 0):
        first = ", ".join(last.get("firstFailingCases", ()))
        message = (
            f"{last.get('failed', 0)} of {last['total']} cases failed, {last.get('errored', 0)} not tried: {first}"
        )
        made = conditions.degraded("DriftDetected", message)
    else:
        message = f"{last['passed']} of {last['total']} cases passed"
        made = conditions.standing(
            "Ready",
            ready=(True, "AllPassed", message),
            progressing=(going, "RunTriggered" if going else "Reconciled"),
            state="NotApplicable",
        )
    if last is None:
        return made
    drifting = bool(last.get("failed", 0))
    drift = say(DRIFT, drifting, "DriftDetected" if drifting else "AllPassed")
    return msgspec.structs.replace(made, conditions=(*made.conditions, drift))


def not_run(resource: KarsEval, *, going: bool) -> Standing:
    """Say that nothing has been tried yet."""
    if going:
        return conditions.standing(
            "Running",
            ready=(False, "RunTriggered", "the first run has not ended yet"),
            progressing=(True, "RunTriggered"),
            state="NotApplicable",
        )
    if resource.spec.schedule is not None:
        reason, message = "Scheduled", f"it runs by the schedule {resource.spec.schedule}"
    else:
        reason, message = "Reconciled", f"it runs when the annotation {RUN_NOW} is true"
    return conditions.standing(
        "Pending", ready=(False, reason, message), progressing=(False, reason), state="NotApplicable"
    )
