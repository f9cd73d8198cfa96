"""People who never rest: they make, change and delete sandboxes and policies, whatever becomes of the API server."""

import contextlib
import random
import threading
import time
from collections.abc import Callable

from tests.cluster.api import Api, ApiError, Object
from tests.cluster.installation import NAMESPACE

GROUP = "kars.azure.com"
API = f"{GROUP}/v1alpha1"
SANDBOXES = f"/apis/{API}/namespaces/{NAMESPACE}/karssandboxes"
POLICIES = f"/apis/{API}/namespaces/{NAMESPACE}/inferencepolicies"
TOOLS = f"/apis/{API}/namespaces/{NAMESPACE}/toolpolicies"
MODELS = "models"
PROFILE = "profile"
PAUSE_SECONDS = 0.05
REQUEST_SECONDS = 5.0


def policy(name: str, *, tokens: int = 100_000) -> Object:
    """Return an InferencePolicy."""
    spec = {
        "appliesTo": {},
        "modelPreference": {"primary": {"provider": "azure-openai", "deployment": "gpt-4.1"}},
        "tokenBudget": {"dailyTokens": tokens, "perRequestTokens": 8000},
    }
    return {"apiVersion": API, "kind": "InferencePolicy", "metadata": {"name": name}, "spec": spec}


def sandbox(name: str, *, suspended: bool = True, tools: str = "", **spec: object) -> Object:
    """Return a KarsSandbox; asleep, it needs everything but a pod."""
    given: Object = {
        "runtime": {"kind": "OpenClaw"},
        "sandbox": {"isolation": "standard"},
        "inferenceRef": {"name": MODELS},
        "suspended": suspended,
    }
    if tools:
        given["governance"] = {"enabled": True, "toolPolicyRef": {"name": tools}}
    return {"apiVersion": API, "kind": "KarsSandbox", "metadata": {"name": name}, "spec": given | spec}


class Unrest:
    """Does one thing after another in a thread until it is told to stop; what fails is left, as people do.

    At most `most` sandboxes and three policies stand at a time. Bounded by `seconds`, too.
    """

    def __init__(self, api: Api, *, seed: int, most: int = 12, prefix: str = "u", awake: float = 0.2) -> None:
        self.api = api
        self.random = random.Random(seed)
        self.most = most
        self.prefix = prefix
        self.awake = awake
        self.done: dict[str, int] = {}
        self.failed = 0
        self.number = 0
        self.standing: list[str] = []
        self.stopping = threading.Event()
        self.active = threading.Event()
        self.idle = threading.Event()
        self.thread = threading.Thread(target=self.run, name="unrest", daemon=True)
        self.deadline = 0.0

    def start(self, seconds: float) -> "Unrest":
        """Begin."""
        self.deadline = time.monotonic() + seconds
        self.active.set()
        self.thread.start()
        return self

    def pause(self) -> None:
        """Rest for a while, after what is under way."""
        self.idle.clear()
        self.active.clear()
        assert self.idle.wait(2 * REQUEST_SECONDS + 5) or not self.thread.is_alive()

    def resume(self) -> None:
        """Go on."""
        self.active.set()

    def stop(self) -> None:
        """End, after what is under way."""
        self.stopping.set()
        self.active.set()
        self.thread.join(2 * REQUEST_SECONDS + 5)
        assert not self.thread.is_alive()

    def run(self) -> None:
        """Do things."""
        deeds: list[tuple[Callable[[], None], int]] = [
            (self.create, 6),
            (self.change, 5),
            (self.delete, 3),
            (self.change_policy, 1),
            (self.replace_policy, 1),
            (self.spoil, 3),
        ]
        while not self.stopping.is_set() and time.monotonic() < self.deadline:
            if not self.active.is_set():
                self.idle.set()
                self.active.wait(REQUEST_SECONDS)
                continue
            (deed,) = self.random.choices([one for one, _ in deeds], [weight for _, weight in deeds])
            try:
                deed()
                self.done[deed.__name__] = self.done.get(deed.__name__, 0) + 1
            except (ApiError, OSError):
                self.failed += 1
            self.stopping.wait(PAUSE_SECONDS)

    def create(self) -> None:
        """Make a sandbox."""
        if len(self.standing) >= self.most:
            self.delete()
            return
        self.number += 1
        name = f"{self.prefix}{self.number}"
        self.standing.append(name)  # it may be there although nobody said so
        asleep = self.random.random() > self.awake
        self.ask("POST", SANDBOXES, sandbox(name, suspended=asleep))

    def change(self) -> None:
        """Change one: its doors, its labels, its sleep."""
        if not self.standing:
            return
        path = f"{SANDBOXES}/{self.random.choice(self.standing)}"
        host = f"h{self.random.randrange(1000)}.example.com"
        change = self.random.choice(
            [
                {"spec": {"networkPolicy": {"allowedEndpoints": [{"host": host, "port": 443}]}}},
                {"metadata": {"labels": {"example.com/mood": host}}},
                {"spec": {"suspended": self.random.random() > self.awake}},
            ]
        )
        self.merge(path, change)

    def delete(self) -> None:
        """Delete one."""
        if not self.standing:
            return
        name = self.random.choice(self.standing)
        with contextlib.suppress(LookupError):
            self.gone(f"{SANDBOXES}/{name}")
        self.standing.remove(name)

    def change_policy(self) -> None:
        """Change what all of them depend on."""
        self.merge(f"{POLICIES}/{MODELS}", {"spec": {"tokenBudget": {"dailyTokens": self.random.randrange(10**6)}}})

    def replace_policy(self) -> None:
        """Make a policy that nothing refers to, or delete it."""
        name = f"{self.prefix}-{self.random.randrange(3)}"
        if self.random.random() < 0.5:
            self.ask("POST", POLICIES, policy(name))
        else:
            self.gone(f"{POLICIES}/{name}")

    def spoil(self) -> None:
        """Edit or delete an object that the controller made."""
        if not self.standing:
            return
        name = self.random.choice(self.standing)
        space = f"kars-{name}"
        path, edit = self.random.choice(
            [
                (f"/apis/apps/v1/namespaces/{space}/deployments/{name}", {"spec": {"replicas": 3}}),
                (f"/apis/networking.k8s.io/v1/namespaces/{space}/networkpolicies/sandbox-policy", {"spec": None}),
                (f"/api/v1/namespaces/{space}/services/{name}", {"spec": {"selector": {"a": "b"}}}),
                (f"/api/v1/namespaces/{space}/configmaps/karssandbox-{name}-egress-allowlist", {"data": None}),
                (f"/api/v1/namespaces/{space}/serviceaccounts/sandbox", {"automountServiceAccountToken": True}),
            ]
        )
        if edit.get("spec", "") is None or self.random.random() < 0.5:
            self.gone(path)
        else:
            self.merge(path, edit)

    def clear(self) -> None:
        """Delete every sandbox, and every policy but the one that is always there."""
        for path in (SANDBOXES, POLICIES):
            for one in self.api.items(path):
                if one["metadata"]["name"] != MODELS:
                    self.api.drop(f"{path}/{one['metadata']['name']}")
        self.standing.clear()

    # One request each, with a short patience

    def ask(self, method: str, path: str, body: Object | None = None, content: str = "application/json") -> None:
        self.api.request(method, path, body, content=content, seconds=REQUEST_SECONDS)

    def merge(self, path: str, patch: Object) -> None:
        self.ask("PATCH", path, patch, "application/merge-patch+json")

    def gone(self, path: str) -> None:
        self.ask("DELETE", path)
