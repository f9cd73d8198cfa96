"""An installation to be tried by faults: real controllers, each behind a proxy of its own, and a census of the result."""

import os
import secrets
import signal
import time
from collections.abc import Callable

from tests.cluster import unrest
from tests.cluster.api import ApiError, Object
from tests.cluster.census import Census
from tests.cluster.chaos import Proxy, Seen
from tests.cluster.installation import NAMESPACE, Controller, Installation
from tests.cluster.plane import ControlPlane

# What takes minutes is done when it is asked for; the rest of the suite shows the same in small.
FULL = os.environ.get("KARS_CHAOS") == "full"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/kars-controller-leader"
START_SECONDS = 45.0
LEAD_SECONDS = 45.0
# What everybody may write at any time: who leads is settled there.
LEASES = "/leases"
WRITES = {"POST", "PUT", "PATCH", "APPLY", "DELETE"}


class Ruler:
    """One controller and the proxy that it sees the API server through."""

    def __init__(self, trial: "Trial", proxy: Proxy, controller: Controller) -> None:
        self.trial = trial
        self.proxy = proxy
        self.controller = controller

    def leads(self) -> bool:
        """Whether it says that it leads."""
        return self.controller.metric("kars_controller_leader") == 1.0

    def wait_leading(self) -> "Ruler":
        """Wait until it does."""
        self.trial.plane.wait(self.leads, LEAD_SECONDS, what=f"{self.controller.name} leads")
        return self

    def knows_leader(self) -> bool:
        """Whether it has looked at the lease."""
        return any(one.verb == "GET" and LEASES in one.path and one.status == 200 for one in list(self.proxy.seen))

    def kill(self) -> None:
        """End it without warning."""
        self.controller.process.kill()

    def pause(self) -> None:
        """Stop it in its tracks; its connections stay."""
        self.controller.process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.controller.process.send(signal.SIGCONT)

    def writes(self, since: float = 0.0) -> list[Seen]:
        """Return what it has asked to be written, but for leases, of requests that began after a moment."""
        seen = list(self.proxy.seen)
        return [one for one in seen if one.verb in WRITES and LEASES not in one.path and one.began >= since]


class Trial:
    """An installation on a control plane, with what its sandboxes need."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.installation = Installation(plane)
        self.rulers: list[Ruler] = []
        self.census: Census | None = None

    def start(self) -> "Trial":
        """Install, and make a policy and a node."""
        self.installation.install()
        self.census = Census(self.plane, self.installation)
        self.plane.api.create(unrest.POLICIES, unrest.policy(unrest.MODELS))
        self.plane.node()
        return self

    def stop(self) -> None:
        """End the controllers and the proxies."""
        self.installation.stop()
        for ruler in self.rulers:
            ruler.proxy.stop()
        if self.census is not None:
            self.plane.background.start(self.census.close()).result(10)

    # Controllers

    def rule(self, **env: str) -> Ruler:
        """Start a controller behind a proxy of its own; returns when it knows everything."""
        proxy = Proxy(self.plane).start()
        ruler = Ruler(self, proxy, self.installation.start(server=proxy.url, **env))
        self.rulers.append(ruler)
        self.plane.wait(lambda: ruler.controller.get("/readyz"), START_SECONDS, what="the controller's readiness")
        return ruler

    def leader(self) -> Ruler:
        """Return the controller that leads, a new one when there is none."""
        for ruler in self.rulers:
            if ruler.controller.process.ended() is None:
                return ruler.wait_leading()
        # Nobody holds it; without this the first would wait for the time of one that was killed.
        self.plane.api.drop(LEASE)
        return self.rule().wait_leading()

    def heir(self) -> Ruler:
        """Start another controller after the death of the last, without waiting for the dead one's lease."""
        self.plane.api.drop(LEASE)
        return self.rule()

    # Sandboxes

    def name(self) -> str:
        """Return a name that no sandbox has."""
        return f"s{secrets.token_hex(3)}"

    def make(self, count: int = 1, *, namespace: str = NAMESPACE, **spec: object) -> list[str]:
        """Make sandboxes that sleep; their names."""
        names = [self.name() for _ in range(count)]
        for name in names:
            self.create(name, namespace=namespace, **spec)
        return names

    def create(self, name: str, *, namespace: str = NAMESPACE, **spec: object) -> Object:
        """Make one sandbox of a name."""
        path = unrest.SANDBOXES.replace(NAMESPACE, namespace)
        return self.plane.api.create(path, unrest.sandbox(name, **spec))  # type: ignore[arg-type]

    def path(self, name: str, namespace: str = NAMESPACE) -> str:
        """Return the path of a sandbox."""
        return f"{unrest.SANDBOXES.replace(NAMESPACE, namespace)}/{name}"

    def ready(self, name: str, namespace: str = NAMESPACE) -> tuple[str, str, str]:
        """Return status, reason and message of a sandbox's Ready."""
        found = self.plane.api.get(self.path(name, namespace)).get("status") or {}
        told = next((one for one in found.get("conditions", ()) if one["type"] == "Ready"), {})
        return told.get("status", ""), told.get("reason", ""), told.get("message", "")

    def condition(self, name: str, kind: str) -> Object:
        """Return a condition of a sandbox; empty when it has none of the type."""
        found = self.plane.api.get(self.path(name)).get("status") or {}
        return next((one for one in found.get("conditions", ()) if one["type"] == kind), {})

    def settled(self, what: str, *, since: float | None = None, whole: bool = False) -> float:
        """Wait for convergence (see `Census.converged`); the seconds since then, or since now."""
        assert self.census is not None
        return self.census.converged(time.monotonic() if since is None else since, what=what, whole=whole)

    def clear(self) -> None:
        """Delete every sandbox and every policy but the one that is always there; nobody waits for their ends."""
        assert self.census is not None
        for one in self.plane.api.items("/apis/kars.azure.com/v1alpha1/karssandboxes"):
            metadata = one["metadata"]
            self.plane.api.drop(self.path(metadata["name"], metadata["namespace"]))
            self.census.dismiss(metadata["name"])

    def attempt(self, deed: Callable[[], object]) -> None:
        """Do something that may fail."""
        try:
            deed()
        except (ApiError, OSError):
            return
