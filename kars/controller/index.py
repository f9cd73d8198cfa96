"""Which resources depend on which objects, so that a change finds them without a search."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import TypeVar

from kars.kube.types import Key

At = TypeVar("At", bound=Hashable)
# Kind and place of an object that something depends on.
Target = tuple[str, Key]


class Index:
    """Dependants by what they depend on; both directions cost what is asked for and no more."""

    def __init__(self) -> None:
        self.dependants: defaultdict[Target, set[Key]] = defaultdict(set)
        self.targets: dict[Key, frozenset[Target]] = {}

    def put(self, dependant: Key, targets: Iterable[Target]) -> None:
        """Replace what a dependant depends on; nothing at all takes it out."""
        new, old = frozenset(targets), self.targets.get(dependant, frozenset())
        for target in old - new:
            self.dependants[target].discard(dependant)
            if not self.dependants[target]:
                del self.dependants[target]
        for target in new - old:
            self.dependants[target].add(dependant)
        if new:
            self.targets[dependant] = new
        else:
            self.targets.pop(dependant, None)

    def find(self, kind: str, key: Key) -> frozenset[Key]:
        """Return who depends on an object."""
        return frozenset(self.dependants.get((kind, key), ()))


def place(sets: dict[At, set[Key]], at: At, key: Key, *, there: bool) -> None:
    """Put a key into a set, or take it out, and the set away when it was the last."""
    if there:
        sets.setdefault(at, set()).add(key)
    elif at in sets:
        sets[at].discard(key)
        if not sets[at]:
            del sets[at]
