"""kars as its charts install it: the controller is a real process with the chart's account, rights and variables."""

import base64
import contextlib
import http.client
import itertools
import os
import socket
import sys
from pathlib import Path

from tests.cluster.api import Object
from tests.cluster.plane import ControlPlane
from tests.cluster.process import Process

ROOT = Path(__file__).parents[2]
NAMESPACE = "kars-system"
# What must be configured, and images that nobody pulls.
VALUES = ("foundry.endpoint=https://e2e-fake.invalid/",)
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/kars-controller"
NUMBERS = itertools.count()


class Installation:
    """The two charts on one control plane, and the controllers that run."""

    def __init__(self, plane: ControlPlane, *values: str) -> None:
        self.plane = plane
        self.values = [*VALUES, *values]
        self.controllers: list[Process] = []

    def install(self) -> "Installation":
        """Install both charts."""
        self.plane.helm("install", "kars-crds", str(ROOT / "charts/kars-crds"))
        self.upgrade()
        return self

    def upgrade(self, *values: str) -> str:
        """Install or upgrade the controller's chart; what helm says."""
        chosen = [part for value in (*self.values, *values) for part in ("--set", value)]
        done = self.plane.helm(
            "upgrade", "--install", "kars", str(ROOT / "charts/kars"), "-n", NAMESPACE, "--create-namespace", *chosen
        )
        return done.stdout

    def start(self, *, server: str = "", **changes: str) -> "Controller":
        """Start a controller; `changes` are variables on top of those of the chart's Deployment."""
        name = f"kars-controller-{next(NUMBERS)}"
        port = free_port()
        config = self.plane.service_account_kubeconfig(NAMESPACE, "kars-controller", server=server)
        env = self.placed(self.variables(name), name) | {"CONTROLLER_METRICS_ADDR": f"127.0.0.1:{port}"} | changes
        process = Process(
            [sys.executable, "-m", "kars", "controller"],
            log=self.plane.folder / f"{name}.log",
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": str(config), **env},
            cwd=ROOT,
        )
        self.controllers.append(process.start())
        return Controller(process, name=name, port=port)

    def variables(self, pod: str) -> dict[str, str]:
        """Return the variables that the chart's Deployment gives a pod."""
        (container,) = self.plane.api.get(DEPLOYMENT)["spec"]["template"]["spec"]["containers"]
        fields = {"metadata.name": pod, "metadata.namespace": NAMESPACE}
        return {
            one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in container["env"]
            if "value" in one or "fieldRef" in one["valueFrom"]
        }

    def placed(self, variables: dict[str, str], pod: str) -> dict[str, str]:
        """Return variables with paths led to files, as the Deployment mounts ConfigMaps and Secrets."""
        spec = self.plane.api.get(DEPLOYMENT)["spec"]["template"]["spec"]
        sources = {one["name"]: one for one in spec["volumes"]}
        (container,) = spec["containers"]
        found = dict(variables)
        for mount in container["volumeMounts"]:
            folder = self.plane.folder / pod / mount["name"]
            if self.fill(folder, sources[mount["name"]]):
                inside = {name: text for name, text in found.items() if text.startswith(f"{mount['mountPath']}/")}
                found |= {name: str(folder / text[len(mount["mountPath"]) + 1 :]) for name, text in inside.items()}
        return found

    def fill(self, folder: Path, volume: Object) -> bool:
        """Write the files of a ConfigMap's or a Secret's volume; false for other volumes."""
        kind = "configmaps" if "configMap" in volume else "secrets"
        source = volume.get("configMap") or volume.get("secret")
        if source is None:
            return False
        name = source.get("name") or source["secretName"]
        data = self.plane.api.get(f"/api/v1/namespaces/{NAMESPACE}/{kind}/{name}").get("data", {})
        folder.mkdir(parents=True)
        for item in source["items"]:
            text = data[item["key"]]
            content = text.encode() if kind == "configmaps" else base64.b64decode(text)
            (folder / item["path"]).write_bytes(content)
        return True

    def stop(self) -> None:
        """Stop every controller that still runs."""
        for process in self.controllers:
            process.stop()


class Controller:
    """One controller that runs."""

    def __init__(self, process: Process, *, name: str, port: int) -> None:
        self.process = process
        self.name = name
        self.port = port

    def get(self, path: str) -> str:
        """Read a page of its health server; an OSError when it does not answer with success."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
        if answer.status != 200:
            raise OSError(f"{path}: {answer.status} {body}")
        return body

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = (line for line in self.get("/metrics").splitlines() if line.startswith((f"{name}{{", f"{name} ")))
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(one in line for one in wanted))


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
