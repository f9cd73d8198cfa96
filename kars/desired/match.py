"""Whether an object in the cluster still is what was planned."""

from __future__ import annotations

from kars.kube.types import Object


def stands(wanted: Object, found: Object) -> bool:
    """Whether every field that is wanted is there with that value, and the stamps agree.

    Quantities are compared as numbers, keyed lists by their keys, what the API server fills in is passed over. Of a
    Secret, `found` may carry `digests` (SHA-256 by key) instead of its data.
    """
    raise NotImplementedError
