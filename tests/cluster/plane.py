"""A real control plane on the loopback: etcd, kube-apiserver and kube-controller-manager, and kwok when asked for.

Nothing schedules and nothing runs containers here: `scheduler.py` binds pods, `kubelet.py` runs routers for real,
kwok pretends. Everything a plane writes is in its folder.
"""

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.cluster import authority, waiting
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.background import Background
from tests.cluster.kubelet import PACE, Kubelet
from tests.cluster.process import Process
from tests.cluster.scheduler import Scheduler, is_ready
from tests.cluster.watching import Session
from tests.system.router import free_ports

Found = TypeVar("Found")

TOOLS = Path(__file__).parent / "tools" / "build"
START_SECONDS = 45.0
# The controllers that tests see at work; the others cost start-up time and requests that nobody asked for.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "persistentvolumeclaim-protection-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",
)
SAMPLE = re.compile(r"^apiserver_request_total\{([^}]*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


def find_tools() -> Path:
    """The folder of the built programs; an AssertionError that says how to build them."""
    found = subprocess.run([TOOLS, "--where"], capture_output=True, text=True)
    assert found.returncode == 0, (
        f"the control plane's programs are not built; run `make tools` ({found.stderr.strip()})"
    )
    return Path(found.stdout.strip())


class ControlPlane:
    """One control plane; `start` before use, `stop` after. `url` is the API server's, `admin` a kubeconfig."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = find_tools()
        for name in ("logs", "etcd", "home", "accounts"):
            (folder / name).mkdir(parents=True)
        self.ports = free_ports(3)
        self.url = f"https://127.0.0.1:{self.ports[2]}"
        self.token = secrets.token_hex(16)
        self.authority = authority.Authority()
        self.authority_file = folder / "authority.crt"
        self.authority_file.write_bytes(self.authority.pem)
        self.etcd = self.process("etcd", self.etcd_flags())
        self.server = self.process("kube-apiserver", self.server_flags())
        self.admin = self.write_kubeconfig("admin", {"token": self.token})
        self.manager = self.process("kube-controller-manager", self.manager_flags())
        self.kwok: Process | None = None
        self.background = Background()
        self.scheduler: Scheduler | None = None
        self.kubelets: dict[str, tuple[Kubelet, Future[None]]] = {}
        self.api = Api(self.url, authority=str(self.authority_file), token=self.token)

    # Start and stop

    def start(self) -> "ControlPlane":
        """Start; returns when pods can be created in the namespace `default`."""
        try:
            self.etcd.start()
            self.server.start()
            self.wait_api()
            self.manager.start()
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self.wait_for(self.manager, lambda: self.api.find(account))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process at once: nothing that they hold is wanted any more."""
        self.background.stop()
        self.api.close()
        for process in (self.kwok, self.manager, self.server, self.etcd):
            if process is not None:
                process.kill()

    def wait_api(self) -> None:
        """Wait until the API server says that it is ready."""
        self.wait_for(self.server, lambda: self.api.get("/readyz"))

    def wait_for(self, process: Process, condition: Callable[[], object]) -> None:
        """Wait for what a process brings about; when it fails to, show its log."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            ended = process.ended()
            try:
                if condition():
                    return
            except (OSError, ApiError):
                pass
            name = Path(process.command[0]).name
            assert ended is None, f"{name} ended with {ended}:\n{process.tail()}"
            assert time.monotonic() < deadline, f"{name} is not ready after {START_SECONDS} s:\n{process.tail()}"
            time.sleep(0.03)

    # Faults

    def restart_api(self) -> None:
        """Stop the API server as an upgrade does, and start it again on its port; returns when it is ready."""
        self.server.stop()
        self.start_api()

    def kill_api(self) -> None:
        """End the API server without warning; `start_api` brings it back on its port."""
        self.server.kill()

    def start_api(self) -> None:
        """Start the API server after its end; returns when it is ready."""
        self.server.start()
        self.wait_api()

    def pause_api(self) -> None:
        """Let the API server neither answer nor close: connections stay open and silent until `resume_api`."""
        self.server.send(signal.SIGSTOP)

    def resume_api(self) -> None:
        """End a pause."""
        self.server.send(signal.SIGCONT)

    # Accounts

    def kubeconfig(self, user: str, groups: Iterable[str] = (), *, server: str = "") -> Path:
        """Make a kubeconfig for any user of any groups, by a client certificate; `server` instead of the API server's URL."""
        pair = self.authority.client(user, groups)
        account = {
            "client-certificate-data": base64.b64encode(pair.certificate).decode(),
            "client-key-data": base64.b64encode(pair.key).decode(),
        }
        return self.write_kubeconfig(user, account, server=server)

    def service_account_token(self, namespace: str, name: str, *, seconds: int = 3600) -> str:
        """Ask for a token of a service account, which must be there."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        return str(self.api.create(path, request)["status"]["token"])

    def service_account_kubeconfig(self, namespace: str, name: str, *, server: str = "") -> Path:
        """Make a kubeconfig for a service account, with a token as its pods have."""
        token = self.service_account_token(namespace, name)
        return self.write_kubeconfig(f"{namespace}-{name}", {"token": token}, server=server)

    def write_kubeconfig(self, name: str, user: Object, *, server: str = "") -> Path:
        """Write a kubeconfig for one user."""
        cluster = {
            "server": server or self.url,
            "certificate-authority-data": base64.b64encode(self.authority.pem).decode(),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        safe = re.sub(r"[^A-Za-z0-9.-]+", "-", name)
        path = self.folder / "accounts" / f"{safe}-{secrets.token_hex(4)}.kubeconfig"
        path.touch(0o600)
        path.write_text(json.dumps(content))
        return path

    # Clients

    def kubectl(
        self, *arguments: str, stdin: str = "", config: Path | None = None, check: bool = True, seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, as administrator or with another kubeconfig; an AssertionError with its words when it fails."""
        return self.run("kubectl", *arguments, stdin=stdin, config=config, check=check, seconds=seconds)

    def helm(
        self, *arguments: str, config: Path | None = None, check: bool = True, seconds: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run helm likewise."""
        return self.run("helm", *arguments, stdin="", config=config, check=check, seconds=seconds)

    def run(
        self, tool: str, *arguments: str, stdin: str, config: Path | None, check: bool, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the built clients with a home of the plane's own."""
        home = self.folder / "home"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "KUBECONFIG": str(config or self.admin),
            "HELM_CACHE_HOME": str(home / "helm-cache"),
            "HELM_CONFIG_HOME": str(home / "helm-config"),
            "HELM_DATA_HOME": str(home / "helm-data"),
        }
        done = subprocess.run(
            [str(self.tools / tool), *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        said = f"{tool} {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0 or not check, said
        return done

    def apply(self, documents: str | Iterable[Object], *, namespace: str = "default") -> str:
        """Apply YAML or objects with `kubectl apply --server-side`; what kubectl says."""
        text = documents if isinstance(documents, str) else "\n---\n".join(json.dumps(one) for one in documents)
        done = self.kubectl("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-", stdin=text)
        return done.stdout

    def wait(self, condition: Callable[[], Found], seconds: float = 20.0, *, what: str = "") -> Found:
        """Ask until the answer is true (see `waiting.wait`). What ended a kubelet or the scheduler is raised at once."""

        def ask() -> Found:
            self.background.check()
            return condition()

        return waiting.wait(ask, seconds, what=what or getattr(condition, "__name__", ""))

    def make_namespace(self, name: str = "", labels: dict[str, str] | None = None, *, pods: bool = True) -> str:
        """Create a namespace that pods can be created in, unless none are; its name, by chance if none is given."""
        name = name or f"t-{secrets.token_hex(4)}"
        self.api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels or {}}})
        if pods:
            account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
            self.wait(lambda: self.api.find(account), what=f"the default account of {name}")
        return name

    def counters(self) -> Counter[tuple[str, str]]:
        """How many requests the API server has answered, by verb and resource: `("PATCH", "pods/status")`.

        Everybody's requests are in it: the controller manager's, kubelets' and those of this very process. What
        happened between two moments is the difference. A watch counts when it ends.
        """
        found: Counter[tuple[str, str]] = Counter()
        for labels, value in SAMPLE.findall(self.api.get("/metrics")["text"]):
            row = dict(LABEL.findall(labels))
            resource = row["resource"] + (f"/{row['subresource']}" if row["subresource"] else "")
            found[row["verb"], resource] += int(float(value))
        return found

    # Nodes

    def node(self, name: str = "", *, pool: str = "sandbox") -> str:
        """Make a node whose pods kwok turns Ready at once (and whose Jobs' pods succeed); its name.

        Every pod of the plane that fits it and that no kubelet claims is bound to it: `schedule().claims` of a
        namespace to no node keeps its pods pending.
        """
        self.schedule()
        if self.kwok is None:
            self.kwok = self.process("kwok", self.kwok_flags()).start()
        name = name or f"kwok-{pool}"
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kars.azure.com/pool": pool}
        metadata = {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}}
        path = f"/api/v1/nodes/{name}"
        self.api.apply(path, {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        self.wait_for(self.kwok, lambda: is_ready(self.api.get(path)))
        return name

    def kubelet(self, *namespaces: str, pool: str = "sandbox", pace: float = PACE) -> Kubelet:
        """Make a node that runs routers as processes; pods of these namespaces (shell patterns) are bound to it alone."""
        name = f"kubelet-{secrets.token_hex(3)}"
        made = Kubelet(self.open_session, name=name, folder=self.folder / name, pool=pool, pace=pace)
        self.schedule().claims.update(dict.fromkeys(namespaces, name))
        self.kubelets[name] = (made, self.background.start(made.run()))
        self.wait(lambda: is_ready(self.api.get(f"/api/v1/nodes/{name}")), what=f"the node {name}")
        return made

    def retire(self, kubelet: Kubelet) -> None:
        """End a kubelet, its routers and its node."""
        self.background.check()
        _, running = self.kubelets.pop(kubelet.name)
        scheduler = self.schedule()
        scheduler.claims = {space: node for space, node in scheduler.claims.items() if node != kubelet.name}
        running.cancel()
        self.api.delete(f"/api/v1/nodes/{kubelet.name}")
        # Nobody is left to say that they ended; without that their namespaces could not go.
        for pod in self.api.items("/api/v1/pods", fieldSelector=f"spec.nodeName={kubelet.name}"):
            path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            self.api.drop(path, {"gracePeriodSeconds": 0})

    def schedule(self) -> Scheduler:
        """The scheduler; it begins to bind pods when it is first asked for."""
        if self.scheduler is None:
            self.scheduler = Scheduler(self.open_session)
            self.background.start(self.scheduler.run())
        return self.scheduler

    def open_session(self) -> Session:
        """Open an administrator's session in the running loop."""
        return Session(self.url, authority=self.authority.pem.decode(), token=self.token)

    # Processes

    def process(self, tool: str, flags: Iterable[str]) -> Process:
        """One of the built programs, not started yet."""
        command = [str(self.tools / tool), *flags]
        log = self.folder / "logs" / f"{tool}.log"
        # Nothing of the environment: proxies and accounts in it are not for these.
        return Process(command, log=log, env={"PATH": os.environ["PATH"], "HOME": str(self.folder / "home")})

    def etcd_flags(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{port}" for port in self.ports[:2])
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def server_flags(self) -> list[str]:
        certificate, key = self.authority.server().write(self.folder, "server")
        accounts = self.folder / "accounts.key"
        accounts.touch(0o600)
        accounts.write_bytes(authority.private(rsa.generate_private_key(65537, 2048)))
        tokens = self.folder / "tokens.csv"
        tokens.touch(0o600)
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        return [
            f"--etcd-servers=http://127.0.0.1:{self.ports[0]}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.ports[2]}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.authority_file}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",
            "--allow-privileged=true",
            # A stop ends the watches and not their clients; the default waits a minute for those.
            "--shutdown-watch-termination-grace-period=500ms",
            "--profiling=false",
        ]

    def manager_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.admin}",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            f"--root-ca-file={self.authority_file}",
            "--leader-elect=false",
            "--secure-port=0",
            # It must keep up with tests that make hundreds of objects.
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
        ]

    def kwok_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.admin}",
            f"--config={self.tools / 'stages.yaml'}",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--node-lease-duration-seconds=200",
            # Nothing listens at a pretended pod, and what asks one all the same must not leave this machine.
            "--cidr=127.20.0.0/16",
            "--node-ip=127.20.0.1",
        ]
