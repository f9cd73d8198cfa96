"""The chart as helm renders it."""

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.plane import find_tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "kars"
NAMESPACE = "kars-system"

Object = dict[str, Any]

# What a cluster with the Prometheus operator serves.
MONITORING = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")
# Everything that can be switched on.
EVERYTHING = {
    "sre.enabled": True,
    "entraSidecar.enabled": True,
    "entraSidecar.autoscaling.maxReplicas": 5,
    "imageSignatures.enabled": True,
    "namespace.manage": True,
    "monitoring.podMonitor.enabled": True,
    "monitoring.prometheusRule.enabled": True,
    "inferenceRouter.azure.openai.endpoint": "https://models.example.com",
}


def helm(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run helm; an AssertionError with its words when it fails."""
    done = subprocess.run([find_tools() / "helm", *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 or not check, done.stderr
    return done


def flags(values: dict[str, Any]) -> list[str]:
    return [part for path, value in values.items() for part in ("--set-json", f"{path}={json.dumps(value)}")]


def template(values: dict[str, Any] | None = None, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Render with values by path."""
    return helm("template", "kars", str(CHART), "-n", NAMESPACE, *flags(values or {}), *more, check=check)


@functools.cache
def text(frozen: str, more: tuple[str, ...]) -> str:
    return template(json.loads(frozen), *more).stdout


def render(values: dict[str, Any] | None = None, *more: str) -> list[Object]:
    """Render, and read the objects; the same values are rendered once."""
    return [one for one in yaml.safe_load_all(text(json.dumps(values or {}), more)) if one]


def one(objects: list[Object], kind: str, name: str, namespace: str | None = None) -> Object:
    """The object of that name."""
    found = [
        each
        for each in objects
        if (each["kind"], each["metadata"]["name"]) == (kind, name)
        and namespace in {None, each["metadata"].get("namespace")}
    ]
    assert len(found) == 1, f"{len(found)} of {kind}/{name}"
    return found[0]


def refused(values: dict[str, Any], *more: str) -> str:
    """What helm says of values that it does not take."""
    done = template(values, *more, check=False)
    assert done.returncode != 0, "helm took it"
    return done.stderr


def pods(objects: list[Object]) -> list[tuple[str, Object]]:
    """Pod templates by the name of what they belong to."""
    return [
        (f"{each['kind']}/{each['metadata']['name']}", each["spec"]["template"]["spec"])
        for each in objects
        if each["kind"] in {"Deployment", "DaemonSet"}
    ] + [(f"Pod/{each['metadata']['name']}", each["spec"]) for each in objects if each["kind"] == "Pod"]


def environment(objects: list[Object]) -> dict[str, Object]:
    """The controller's variables by name."""
    (container,) = one(objects, "Deployment", "kars-controller")["spec"]["template"]["spec"]["containers"]
    names = [each["name"] for each in container["env"]]
    assert len(names) == len(set(names)), "a variable twice"
    return {each["name"]: each for each in container["env"]}


def value(objects: list[Object], name: str) -> str | None:
    """A variable's text; None when it is not set."""
    return environment(objects).get(name, {}).get("value")
