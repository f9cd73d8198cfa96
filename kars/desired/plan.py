"""Every object of one sandbox, in the order of their applying."""

from __future__ import annotations

from kars.desired.facts import Facts
from kars.kube.types import Object


def plan(facts: Facts) -> tuple[Object, ...]:
    """Return the objects of a sandbox, stamped; the Namespace comes first, the Deployment after what it mounts."""
    raise NotImplementedError


def stamp(value: Object) -> Object:
    """Return the object with `kars.azure.com/desired`, a digest of all the rest, among its annotations.

    An object in the cluster whose stamp differs was made from another plan, so that also what is no longer wanted is
    noticed.
    """
    raise NotImplementedError
