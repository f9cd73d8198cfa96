"""Every object of one sandbox, in the order of their applying.

There is no PodDisruptionBudget: for the one pod of a sandbox it could only let every eviction pass, or none and so keep
a node from being drained.
"""

from __future__ import annotations

import hashlib

import msgspec

from kars.desired import access, config, names, network, pod, runtime
from kars.desired.facts import Facts, Unplannable
from kars.kube.types import Object

# Hex digits of a stamp: 128 bits, so that nobody meets two plans with one stamp.
STAMP_DIGITS = 32

ENCODER = msgspec.json.Encoder(order="sorted")


def plan(facts: Facts) -> tuple[Object, ...]:
    """Return the objects of a sandbox, stamped; the Namespace comes first, the Deployment after what it mounts.

    Raises Unplannable for a sandbox that no pod can be made of.
    """
    refuse_namespace(facts)
    program = runtime.program(facts)
    objects = (
        access.namespace(facts),
        access.account(facts),
        *access.spawning(facts),
        *config.tokens(facts),
        network.policy(facts),
        *config.documents(facts, program),
        *config.copies(facts),
        *config.claims(facts),
        pod.service(facts, program),
        pod.deployment(facts, program),
    )
    return tuple(stamp(one) for one in objects)


def refuse_namespace(facts: Facts) -> None:
    """Raise where the sandbox's namespace would be somebody else's: the controller's, or that of the chart's SRE."""
    taken = names.namespace(facts.name) == facts.platform.namespace
    if taken or (facts.name == "sre" and not facts.sre):
        raise Unplannable("SpecInvalid", f"the name {facts.name} is reserved: its namespace is not a sandbox's")


def stamp(value: Object) -> Object:
    """Return the object with `kars.azure.com/desired`, a digest of all the rest, among its annotations.

    An object in the cluster whose stamp differs was made from another plan, so that also what is no longer wanted is
    noticed.
    """
    metadata = value["metadata"]
    notes = {key: text for key, text in metadata.get("annotations", {}).items() if key != names.DESIRED}
    bare = {**value, "metadata": {**metadata, "annotations": notes}}
    digest = hashlib.sha256(ENCODER.encode(bare)).hexdigest()[:STAMP_DIGITS]
    return {**bare, "metadata": {**metadata, "annotations": {**notes, names.DESIRED: digest}}}
