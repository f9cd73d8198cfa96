"""Who refers to whom: kept change by change, so that a look costs nothing however many sandboxes there are.

Every reconciler has an index of its own, because `change` tells what a change affects: the targets before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

from kars.controller import references
from kars.controller.cluster import Cluster
from kars.controller.index import place
from kars.controller.references import DEFAULT_TOOL_POLICY
from kars.kube.types import Key
from kars.model.base import Resource
from kars.model.sandbox import KarsSandbox
from kars.model.tools import ToolPolicy

Kind = TypeVar("Kind", bound=Resource)

NAMESPACE_PREFIX = "kars-"
NOBODY: frozenset[Key] = frozenset()


class Index(Generic[Kind]):
    """Resources of one kind by what they refer to: `targets` says what that is, `counts` whether a resource counts."""

    def __init__(
        self,
        kind: type[Kind],
        *,
        targets: Callable[[Kind, Cluster], Iterable[Key]],
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
            self.place(Key(resource.metadata.namespace, resource.metadata.name), resource, cluster)

    def change(self, key: Key, cluster: Cluster) -> frozenset[Key]:
        """Take in one resource as it is now; return what it referred to before or refers to now."""
        self.fill(cluster)
        before = self.known.get(key, NOBODY)
        self.place(key, cluster.resource(self.kind, key), cluster)
        return before | self.known.get(key, NOBODY)

    def place(self, key: Key, resource: Kind | None, cluster: Cluster) -> None:
        """Forget what was known of a resource and note what it refers to now."""
        for target in self.known.pop(key, NOBODY):
            place(self.live, target, key, there=False)
            place(self.idle, target, key, there=False)
        place(self.named, key.name, key, there=False)
        if resource is None:
            return
        self.known[key] = frozenset(self.targets(resource, cluster))
        place(self.named, key.name, key, there=True)
        side = self.live if self.counts(resource) else self.idle
        for target in self.known[key]:
            place(side, target, key, there=True)

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


def sandboxes(refers: Callable[[KarsSandbox, Cluster], Iterable[Key]]) -> Index[KarsSandbox]:
    """Make the index of sandboxes by what they refer to; who sleeps or goes does not count."""
    return Index(KarsSandbox, targets=refers, counts=awake)


def awake(sandbox: KarsSandbox) -> bool:
    """Whether a sandbox has, or will have, a pod that can enforce anything."""
    return not sandbox.spec.suspended and sandbox.metadata.deletion_timestamp is None


def of_namespace(namespace: str) -> str:
    """Return the name of the sandbox that a namespace belongs to; empty for another namespace."""
    return namespace.removeprefix(NAMESPACE_PREFIX) if namespace.startswith(NAMESPACE_PREFIX) else ""


def inference(sandbox: KarsSandbox, cluster: Cluster) -> Iterable[Key]:  # noqa: ARG001 - as every kind's
    """Return the InferencePolicy of a sandbox."""
    yield Key(sandbox.metadata.namespace, sandbox.spec.inference_ref.name)


def tools(sandbox: KarsSandbox, cluster: Cluster) -> Iterable[Key]:
    """Return the ToolPolicy that governs a sandbox; of the default one, both that it can be (see `governed`)."""
    name = references.tool_policy(sandbox)
    if name is not None:
        yield Key(sandbox.metadata.namespace, name)
    if name == DEFAULT_TOOL_POLICY:
        yield Key(cluster.settings.namespace, name)


def governed(policy: Key, found: AbstractSet[Key], cluster: Cluster) -> AbstractSet[Key]:
    """Leave out the sandboxes that a default ToolPolicy of their own namespace governs, not the controller's."""
    if policy != Key(cluster.settings.namespace, DEFAULT_TOOL_POLICY):
        return found
    others = {sandbox.namespace for sandbox in found} - {policy.namespace}
    own = {one for one in others if cluster.resource(ToolPolicy, Key(one, DEFAULT_TOOL_POLICY)) is not None}
    return {sandbox for sandbox in found if sandbox.namespace not in own} if own else found


def memory(sandbox: KarsSandbox, cluster: Cluster) -> Iterable[Key]:  # noqa: ARG001 - as every kind's
    """Return the KarsMemory of a sandbox."""
    if sandbox.spec.memory_ref is not None:
        yield Key(sandbox.metadata.namespace, sandbox.spec.memory_ref.name)
