"""Take a sandbox down: its children, its namespace, what it has outside of that; or what it does not want any more.

Nothing goes that is not its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from kars.artifacts import held
from kars.controller.allowlists import owner_of
from kars.controller.children import TOKENS
from kars.controller.cluster import Cluster
from kars.controller.held import owner_of as labelled
from kars.desired import names
from kars.kube import types
from kars.kube.errors import Conflict, Missing
from kars.kube.types import Key, Object
from kars.model.sandbox import KarsSandbox

# What a plan may stop wanting, and what then goes. A volume claim stays: with it would go what the agent wrote.
SWEPT = (types.CONFIG_MAP, types.SECRET, types.DISRUPTION_BUDGET)


async def finalize(sandbox: KarsSandbox, cluster: Cluster) -> bool:
    """Return whether everything is gone. Idempotent: each call does what is left to do."""
    await dismiss(sandbox, cluster)
    key = Key("", names.namespace(sandbox.metadata.name))
    found = await find_namespace(key, cluster)
    if found is not None and is_own(found, sandbox):
        if not found["metadata"].get("deletionTimestamp"):
            await keep_volume(sandbox, cluster)
            with contextlib.suppress(Conflict):  # another one by now, which the next look judges
                await cluster.client.delete(types.NAMESPACE, key, uid=found["metadata"]["uid"])
        return False
    for kind, place in outside(sandbox, cluster):
        await cluster.children.remove(kind, place)
    return True


async def find_namespace(key: Key, cluster: Cluster) -> Object | None:
    """Return the namespace; one that the watch does not show may have lost the label that it is watched by."""
    found = cluster.children.find(types.NAMESPACE, key)
    if found is not None:
        return found
    try:
        return await cluster.client.get(types.NAMESPACE, key)
    except Missing:
        return None


def is_own(namespace: Object, sandbox: KarsSandbox) -> bool:
    """Whether a namespace is labelled as this sandbox's own."""
    labels = namespace["metadata"].get("labels") or {}
    return labelled(labels) == f"{sandbox.metadata.namespace}/{sandbox.metadata.name}"


async def dismiss(sandbox: KarsSandbox, cluster: Cluster) -> None:
    """Delete the sandboxes that this one spawned: nobody else would."""
    for child in cluster.spawned_by(Key(sandbox.metadata.namespace, sandbox.metadata.name)):
        metadata = child.metadata
        if metadata.name != sandbox.metadata.name and metadata.deletion_timestamp is None:
            key = Key(metadata.namespace, metadata.name)
            await cluster.client.delete(types.custom(KarsSandbox), key, uid=metadata.uid)


async def keep_volume(sandbox: KarsSandbox, cluster: Cluster) -> None:
    """Let the volume outlive its claim where the sandbox asks for that."""
    persistence = sandbox.spec.sandbox.persistence
    if persistence is None or persistence.reclaim != "Retain":
        return
    claim = Key(names.namespace(sandbox.metadata.name), names.data_claim(sandbox.metadata.name))
    try:
        volume = (await cluster.client.get(types.VOLUME_CLAIM, claim)).get("spec", {}).get("volumeName")
        if volume:
            patch = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
            await cluster.client.merge(types.VOLUME, Key("", volume), patch)
    except Missing:
        return


def outside(sandbox: KarsSandbox, cluster: Cluster) -> list[tuple[types.Type, Key]]:
    """Return what a sandbox has beyond its own namespace."""
    namespace, name = sandbox.metadata.namespace, sandbox.metadata.name
    spawner = Key(namespace, names.spawner(name))
    return [
        (types.ROLE_BINDING, spawner),
        (types.ROLE, spawner),
        (types.CONFIG_MAP, Key(cluster.settings.namespace, held.name(owner_of(sandbox)))),
    ]


async def sweep(sandbox: KarsSandbox, wanted: Iterable[Object], cluster: Cluster) -> None:
    """Delete the copies, projections and claims of a sandbox that are not wanted any more."""
    namespace = names.namespace(sandbox.metadata.name)
    kept = {(one["kind"], one["metadata"]["name"]) for one in wanted}
    for kind in SWEPT:
        for key in cluster.children.keys(kind, namespace=namespace):
            if (kind.kind, key.name) in kept:
                continue
            found = cluster.children.find(kind, key)
            if found is not None and not stays(found):
                await cluster.children.remove(kind, key)
    for kind, key in outside(sandbox, cluster):
        if kind is not types.CONFIG_MAP and (kind.kind, key.name) not in kept:  # a right that it has no more
            await cluster.children.remove(kind, key)


def stays(found: Object) -> bool:
    """Whether an object of a sandbox's namespace has another writer than this reconciler, or is kept for its tokens."""
    labels = found["metadata"].get("labels") or {}
    token = found["kind"] == "Secret" and found["metadata"]["name"] in TOKENS
    return token or labels.get(names.ARTIFACT) == "egress-approvals"
