"""The Jobs of a KarsEval: one on demand, and the CronJob of its schedule."""

from __future__ import annotations

from hashlib import sha256

from kars.kube.types import CRON_JOB, JOB, Object
from kars.model.evaluation import KarsEval
from kars.policy.compiled.evaluation import FILE
from kars.policy.compiled.outcome import own_labels, owner

# On a KarsEval, `true` asks for a run; it is taken away once the Job is there.
RUN_NOW = "kars.azure.com/run-now"
MOUNT = "/etc/kars/eval-corpus"
# Longest name of a Job, whose pods bear it as a label, and of a CronJob, whose Jobs get eleven characters more.
JOB_NAME_LENGTH, CRON_JOB_NAME_LENGTH = 63, 52
# Seconds that a finished Job stays: on demand somebody is looking, a schedule's is read by the controller only.
KEPT_ON_DEMAND, KEPT_BY_SCHEDULE = 3600, 86_400
# A run that hangs would keep every later one of its schedule from starting.
DEADLINE = 3600


def asked(evaluation: KarsEval) -> bool:
    """Whether a run is asked for."""
    return evaluation.metadata.annotations.get(RUN_NOW) == "true"


def fit(name: str, most: int) -> str:
    """Cut a name that is too long, and tell it from others by a hash."""
    if len(name) <= most:
        return name
    return f"{name[: most - 9].rstrip('-.')}-{sha256(name.encode()).hexdigest()[:8]}"


def cron_job_name(evaluation: KarsEval) -> str:
    """Return the name of the CronJob."""
    return fit(f"karseval-{evaluation.metadata.name}", CRON_JOB_NAME_LENGTH)


def job_name(evaluation: KarsEval) -> str:
    """Return the name of a Job on demand: the same for the same version of the resource, so that it is made once."""
    version = sha256(evaluation.metadata.resource_version.encode()).hexdigest()[:10]
    suffix = f"-runnow-{version}"
    return fit(f"karseval-{evaluation.metadata.name}", JOB_NAME_LENGTH - len(suffix)) + suffix


def job(evaluation: KarsEval, *, image: str, label: str) -> Object:
    """Return the Job of a run on demand; `image` is the controller's runner, `label` the corpus's."""
    made = head(evaluation, job_name(evaluation), "run-now")
    spec = job_spec(evaluation, image, label, "run-now", KEPT_ON_DEMAND)
    return {"apiVersion": JOB.api_version, "kind": JOB.kind, "metadata": made, "spec": spec}


def cron_job(evaluation: KarsEval, *, image: str, label: str) -> Object | None:
    """Return the CronJob of the schedule; None without one."""
    if evaluation.spec.schedule is None:
        return None
    return {
        "apiVersion": CRON_JOB.api_version,
        "kind": CRON_JOB.kind,
        "metadata": head(evaluation, cron_job_name(evaluation), "schedule"),
        "spec": {
            "schedule": evaluation.spec.schedule,
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": {"labels": run_labels(evaluation, "schedule")},
                "spec": job_spec(evaluation, image, label, "schedule", KEPT_BY_SCHEDULE),
            },
        },
    }


def head(evaluation: KarsEval, name: str, trigger: str) -> Object:
    """Return the metadata of a Job or CronJob, which goes with its KarsEval."""
    return {
        "name": name,
        "namespace": evaluation.metadata.namespace,
        "labels": run_labels(evaluation, trigger),
        "ownerReferences": [owner(evaluation)],
    }


def run_labels(evaluation: KarsEval, trigger: str) -> dict[str, str]:
    """Return the labels of what runs an evaluation."""
    return own_labels({"karseval": evaluation.metadata.name, "karseval-trigger": trigger})


def job_spec(evaluation: KarsEval, image: str, label: str, trigger: str, kept: int) -> Object:
    """Return how a run runs: once, without any right, and not for ever."""
    return {
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": kept,
        "activeDeadlineSeconds": DEADLINE,
        "template": {
            "metadata": {"labels": run_labels(evaluation, trigger)},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [runner(evaluation, image, label)],
                "volumes": [{"name": "corpus", "configMap": {"name": f"karseval-{evaluation.metadata.name}-corpus"}}],
            },
        },
    }


def runner(evaluation: KarsEval, image: str, label: str) -> Object:
    """Return the runner's container; what Pod Security `restricted` asks for is all there."""
    sandbox = evaluation.spec.target_sandbox_ref.name
    return {
        "name": "runner",
        "image": evaluation.spec.runner_image or image,
        "args": [
            "--corpus",
            f"{MOUNT}/{FILE}",
            "--corpus-label",
            label,
            "--router-base",
            f"http://{sandbox}.kars-{sandbox}.svc.cluster.local:8443",
            "--output",
            "/dev/stdout",
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "corpus", "mountPath": MOUNT, "readOnly": True}],
    }
