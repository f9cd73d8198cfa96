"""How many children a sandbox may have, and of how deep a generation: an agent must not fill the cluster with its own.

A child that stands keeps its place, also when the bounds become narrower; of those that do not, the oldest come first.
Everything is known from the watches: a look costs no request, and goes through siblings and parents only.
"""

from __future__ import annotations

from datetime import UTC, datetime

from kars.controller.cluster import Cluster
from kars.controller.gather import Blocked
from kars.controller.index import place
from kars.desired import names
from kars.kube.types import Key
from kars.model.base import Metadata
from kars.model.sandbox import KarsSandbox

# Of a sandbox that bears no time, which the API server gives to each: it comes last.
LATEST = datetime.max.replace(tzinfo=UTC)


class Spawning:
    """Who was let through, and who waits for a place."""

    def __init__(self) -> None:
        # Children that were let through, by UID: their namespaces may not have been seen by the watch yet.
        self.placed: dict[Key, str] = {}
        self.waiting: dict[Key, set[Key]] = {}

    def check(self, sandbox: KarsSandbox, cluster: Cluster) -> None:
        """Let a sandbox through that is nobody's child or has a place; `Blocked` for any other."""
        metadata = sandbox.metadata
        key, parent = Key(metadata.namespace, metadata.name), parent_of(metadata)
        if parent is None or self.stands(key, metadata, cluster):
            return
        place(self.waiting, parent, key, there=True)
        check_generation(metadata, cluster)
        self.check_siblings(metadata, parent, cluster)
        place(self.waiting, parent, key, there=False)
        self.placed[key] = metadata.uid

    def stands(self, key: Key, metadata: Metadata, cluster: Cluster) -> bool:
        """Whether a child is made already, or was let through to be made."""
        return (metadata.uid != "" and self.placed.get(key) == metadata.uid) or cluster.owns(key)

    def check_siblings(self, metadata: Metadata, parent: Key, cluster: Cluster) -> None:
        """Refuse a child when its parent has as many as it may have: such as stand, or are older than this one.

        One that is going counts until it is gone, and one that is not valid counts, too: its pod may still run.
        """
        most = cluster.settings.platform.max_children
        before = 0
        for key in cluster.sandboxes_spawned.get(parent, ()):
            known = cluster.known(KarsSandbox, key)
            if known is None or key.name == metadata.name:
                continue
            before += self.stands(key, known.metadata, cluster) or age(known.metadata) < age(metadata)
            if before >= most:
                break
        if before >= most:
            raise Blocked(
                "TooManyChildren",
                f"sandbox {parent.name} has its {most} children, the most that a sandbox may have (KARS_MAX_CHILDREN);"
                f" {metadata.name} is made when one of them is gone",
            )

    def moved(self, key: Key, before: str, parent: str) -> set[Key]:
        """Take in that a sandbox has another parent than before, or is gone; return who may have waited for that."""
        if before == parent:
            return set()
        former = Key(key.namespace, before)
        if before:
            self.placed.pop(key, None)
            place(self.waiting, former, key, there=False)
        return self.waiting.get(former, set()) | self.waiting.get(key, set())


def check_generation(metadata: Metadata, cluster: Cluster) -> None:
    """Refuse a child of too deep a generation, and one whose parents go in a circle, which has no end."""
    most = cluster.settings.platform.max_generations
    parents = ancestors(metadata, cluster, most=most + 1)
    if len(parents) <= most:
        return
    line = " < ".join((metadata.name, *parents))
    circle = len({metadata.name, *parents}) <= len(parents)
    what = "the parents go in a circle" if circle else "the line of parents is too long"
    raise Blocked(
        "TooDeep",
        f"sandbox {metadata.name} cannot be a child of {parents[0]}: {what} ({line}); generations of children may be"
        f" {most} (KARS_MAX_GENERATIONS)",
    )


def generation(sandbox: KarsSandbox, cluster: Cluster) -> int:
    """Return how many parents a sandbox has above it, counted to one more than there may be; 0 for nobody's child."""
    return len(ancestors(sandbox.metadata, cluster, most=cluster.settings.platform.max_generations + 1))


def ancestors(metadata: Metadata, cluster: Cluster, *, most: int) -> list[str]:
    """Return parent, grandparent and so on, at most so many; the labels may go in a circle."""
    found: list[str] = []
    parent = parent_of(metadata)
    while parent is not None and len(found) < most:
        found.append(parent.name)
        known = cluster.known(KarsSandbox, parent)
        parent = parent_of(known.metadata) if known is not None else None
    return found


def parent_of(metadata: Metadata) -> Key | None:
    """Return the parent that a sandbox's label names; None for nobody's child."""
    name = metadata.labels.get(names.PARENT, "")
    return Key(metadata.namespace, name) if name else None


def age(metadata: Metadata) -> tuple[datetime, str]:
    """Return what siblings are in order by: when they were made, then their names."""
    return metadata.creation_timestamp or LATEST, metadata.name
