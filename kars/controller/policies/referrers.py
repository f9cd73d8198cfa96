"""Who refers to whom: kept change by change, so that a look costs nothing however many sandboxes there are.

Every reconciler has an index of its own, because `change` tells what a change affects: the targets before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

from kars.controller.cluster import Cluster
from kars.kube.types import Key
from kars.model.base import Resource
from kars.model.sandbox import KarsSandbox

Kind = TypeVar("Kind", bound=Resource)
At = TypeVar("At")

# The ToolPolicy of a sandbox that names none.
DEFAULT_TOOL_POLICY = "kars-default"
NAMESPACE_PREFIX = "kars-"
NOBODY: frozenset[Key] = frozenset()


class Index(Generic[Kind]):
    """Resources of one kind by what they refer to: `targets` says what that is, `counts` whether a resource counts."""

    def __init__(
        self,
        kind: type[Kind],
        *,
        targets: Callable[[Kind], Iterable[Key]],
        counts: Callable[[Kind], bool] = lambda _: True,
    ) -> None:
        self.kind = kind
        self.targets = targets
        self.counts = counts
        self.filled = False
        self.known: dict[Key, frozenset[Key]] = {}
        self.named: dict[str, set[Key]] = {}
        self.live: dict[Key, set[Key]] = {}
        self.idle: dict[Key, set[Key]] = {}

    def fill(self, cluster: Cluster) -> None:
        """Take in what is there, once; from then on `change` is told of everything."""
        if self.filled:
            return
        self.filled = True
        for resource in cluster.resources(self.kind):
            self.place(Key(resource.metadata.namespace, resource.metadata.name), resource)

    def change(self, key: Key, cluster: Cluster) -> frozenset[Key]:
        """Take in one resource as it is now; return what it referred to before or refers to now."""
        self.fill(cluster)
        before = self.known.get(key, NOBODY)
        self.place(key, cluster.resource(self.kind, key))
        return before | self.known.get(key, NOBODY)

    def place(self, key: Key, resource: Kind | None) -> None:
        """Forget what was known of a resource and note what it refers to now."""
        for target in self.known.pop(key, NOBODY):
            drop(self.live, target, key)
            drop(self.idle, target, key)
        drop(self.named, key.name, key)
        if resource is None:
            return
        self.known[key] = frozenset(self.targets(resource))
        self.named.setdefault(key.name, set()).add(key)
        side = self.live if self.counts(resource) else self.idle
        for target in self.known[key]:
            side.setdefault(target, set()).add(key)

    def referrers(self, target: Key, cluster: Cluster) -> AbstractSet[Key]:
        """Return who refers to it and counts."""
        self.fill(cluster)
        return self.live.get(target, NOBODY)

    def idlers(self, target: Key, cluster: Cluster) -> AbstractSet[Key]:
        """Return who refers to it and does not count."""
        self.fill(cluster)
        return self.idle.get(target, NOBODY)

    def of(self, key: Key) -> frozenset[Key]:
        """Return what a resource refers to."""
        return self.known.get(key, NOBODY)

    def called(self, name: str, cluster: Cluster) -> AbstractSet[Key]:
        """Return the resources of a name, in whatever namespace."""
        self.fill(cluster)
        return self.named.get(name, NOBODY)


def drop(sets: dict[At, set[Key]], at: At, key: Key) -> None:
    """Take a key out of a set, and the set away when it was the last."""
    found = sets.get(at)
    if found is not None:
        found.discard(key)
        if not found:
            del sets[at]


def sandboxes(refers: Callable[[KarsSandbox], Iterable[str]]) -> Index[KarsSandbox]:
    """Make the index of sandboxes by the policies of their namespace; who sleeps or goes does not count."""

    def targets(sandbox: KarsSandbox) -> Iterable[Key]:
        return (Key(sandbox.metadata.namespace, name) for name in refers(sandbox))

    return Index(KarsSandbox, targets=targets, counts=awake)


def awake(sandbox: KarsSandbox) -> bool:
    """Whether a sandbox has, or will have, a pod that can enforce anything."""
    return not sandbox.spec.suspended and sandbox.metadata.deletion_timestamp is None


def of_namespace(namespace: str) -> str:
    """Return the name of the sandbox that a namespace belongs to; empty for another namespace."""
    return namespace.removeprefix(NAMESPACE_PREFIX) if namespace.startswith(NAMESPACE_PREFIX) else ""


def inference(sandbox: KarsSandbox) -> tuple[str, ...]:
    """Return the InferencePolicy of a sandbox."""
    return (sandbox.spec.inference_ref.name,)


def tools(sandbox: KarsSandbox) -> tuple[str, ...]:
    """Return the ToolPolicy that governs a sandbox, named or not; none without governance."""
    governance = sandbox.spec.governance
    if governance is None or (governance.enabled and governance.tool_policy_ref is None):
        return (DEFAULT_TOOL_POLICY,)
    if not governance.enabled or governance.tool_policy_ref is None:
        return ()
    return (governance.tool_policy_ref.name,)


def memory(sandbox: KarsSandbox) -> tuple[str, ...]:
    """Return the KarsMemory of a sandbox."""
    return () if sandbox.spec.memory_ref is None else (sandbox.spec.memory_ref.name,)
