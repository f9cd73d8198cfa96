"""The Jobs and CronJobs of a KarsEval, as objects: who runs, with what, and how little it may do."""

from __future__ import annotations

import hashlib

from kars.desired import names
from kars.kube.types import Object
from kars.model.base import GROUP
from kars.model.evaluation import KarsEval
from kars.policy.compiled.evaluation import FILE
from kars.policy.compiled.outcome import own_labels, owner

EVALUATION = f"{GROUP}/karseval"
TRIGGER = f"{GROUP}/karseval-trigger"
DIGEST = f"{GROUP}/karseval-corpus-digest"
LABEL = f"{GROUP}/karseval-corpus-label"
MOUNT = "/etc/kars/eval-corpus"
# A Job's name is also a label of its pods, and a CronJob adds eleven characters to its own (batch/v1).
JOB_NAME, CRON_JOB_NAME = 63, 52
# Seconds after which a Job that ended goes with its pods, and with it the log: long after its report was read.
RUN_NOW_KEPT, SCHEDULED_KEPT = 3600, 86_400
# A run that takes longer hangs.
LONGEST_RUN = 3600
# How late a scheduled run may begin, after the controllers of the cluster were away.
LATEST_START = 300
# Nobody: what runs needs no file of its own and no right.
USER = 65_532


def cut(name: str, longest: int) -> str:
    """Return a name when it is short enough, else its beginning and a hash of all of it."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - 9].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def run_now_name(evaluation: KarsEval) -> str:
    """Return the name of the Job of a request to run: another one for each state of the resource."""
    version = hashlib.sha256(evaluation.metadata.resource_version.encode()).hexdigest()[:10]
    end = f"-runnow-{version}"
    return cut(f"karseval-{evaluation.metadata.name}", JOB_NAME - len(end)) + end


def cron_job_name(evaluation: KarsEval) -> str:
    """Return the name of the CronJob."""
    return cut(f"karseval-{evaluation.metadata.name}", CRON_JOB_NAME)


def run_now(evaluation: KarsEval, *, image: str, digest: str, label: str) -> Object:
    """Return the Job that runs at once."""
    metadata = {**described(evaluation, "run-now", digest, label), "name": run_now_name(evaluation)}
    metadata |= {"namespace": evaluation.metadata.namespace, "ownerReferences": [owner(evaluation)]}
    spec = job_spec(evaluation, "run-now", image, label)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def cron_job(evaluation: KarsEval, *, image: str, digest: str, label: str) -> Object:
    """Return the CronJob of the schedule."""
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": cron_job_name(evaluation),
            "namespace": evaluation.metadata.namespace,
            "labels": own_labels({"karseval": evaluation.metadata.name, "karseval-trigger": "schedule"}),
            "ownerReferences": [owner(evaluation)],
        },
        "spec": {
            "schedule": evaluation.spec.schedule,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": LATEST_START,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": described(evaluation, "schedule", digest, label),
                "spec": job_spec(evaluation, "schedule", image, label),
            },
        },
    }


def described(evaluation: KarsEval, trigger: str, digest: str, label: str) -> Object:
    """Return labels and annotations of a Job: whose it is, why it runs, and which corpus."""
    labels = {"karseval": evaluation.metadata.name, "karseval-trigger": trigger}
    return {"labels": own_labels(labels), "annotations": {DIGEST: digest, LABEL: label}}


def job_spec(evaluation: KarsEval, trigger: str, image: str, label: str) -> Object:
    """Return what a Job does: once, for a bounded time."""
    return {
        "backoffLimit": 0,
        "activeDeadlineSeconds": LONGEST_RUN,
        "ttlSecondsAfterFinished": RUN_NOW_KEPT if trigger == "run-now" else SCHEDULED_KEPT,
        "template": {
            "metadata": {"labels": {EVALUATION: evaluation.metadata.name, TRIGGER: trigger}},
            "spec": pod_spec(evaluation, image, label),
        },
    }


def pod_spec(evaluation: KarsEval, image: str, label: str) -> Object:
    """Return the runner's pod, as the restricted pod security standard wants it, and without an account's token."""
    sandbox = evaluation.spec.target_sandbox_ref.name
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "runner",
                "image": image,
                "args": [
                    "--corpus",
                    f"{MOUNT}/{FILE}",
                    "--corpus-label",
                    label,
                    "--router-base",
                    f"http://{names.service(sandbox)}.{names.namespace(sandbox)}.svc.cluster.local:8443",
                    "--output",
                    "/dev/stdout",
                ],
                "resources": {
                    "requests": {"cpu": "50m", "memory": "64Mi"},
                    "limits": {"cpu": "500m", "memory": "256Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "corpus", "mountPath": MOUNT, "readOnly": True}],
            }
        ],
        "volumes": [{"name": "corpus", "configMap": {"name": f"karseval-{evaluation.metadata.name}-corpus"}}],
    }
