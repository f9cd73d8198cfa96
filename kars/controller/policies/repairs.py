"""What an approved action does to the cluster. Each can be done twice: the second time changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from kars.errors import FailureError
from kars.kube.client import Client
from kars.kube.types import DAEMON_SET, DEPLOYMENT, POD, RESOURCE_QUOTA, STATEFUL_SET, Key, Object
from kars.model.base import GROUP
from kars.model.sre import Action, ActionParams
from kars.policy.compiled.egress import instant

RESTARTED = f"{GROUP}/restartedAt"
# What the controller's own quotas bear.
GUARDED = (f"{GROUP}/managed-by", "controller")
WORKLOADS = {one.kind: one for one in (DEPLOYMENT, STATEFUL_SET, DAEMON_SET)}


class Refused(FailureError):
    """An action that is not done."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


async def repair(client: Client, action: Action, *, approved: datetime) -> None:
    """Do it; `Refused` when it must not or cannot be done."""
    params = action.params
    key = Key(params.namespace, params.name)
    if action.type == "DeleteResourceQuota":
        await delete_quota(client, key)
    elif action.type == "PatchDeploymentImage":
        await patch_image(client, key, params)
    elif action.type == "ScaleDeployment":
        await client.merge(DEPLOYMENT, key, {"spec": {"replicas": params.replicas}})
    elif action.type == "RolloutRestart":
        # The time of the approval, not of the doing: done again, it restarts nothing.
        annotations = {"annotations": {RESTARTED: instant(approved)}}
        kind = WORKLOADS[params.kind or DEPLOYMENT.kind]
        await client.merge(kind, key, {"spec": {"template": {"metadata": annotations}}})
    else:
        await delete_pod(client, key, approved)


async def delete_quota(client: Client, key: Key) -> None:
    """Delete a quota, unless it is the controller's own."""
    found = await client.get(RESOURCE_QUOTA, key)
    name, value = GUARDED
    if (found["metadata"].get("labels") or {}).get(name) == value:
        raise Refused("ResourceGuarded", f"ResourceQuota {key} is the controller's own")
    await client.delete(RESOURCE_QUOTA, key, uid=found["metadata"]["uid"])


async def patch_image(client: Client, key: Key, params: ActionParams) -> None:
    """Change one container's image, if nobody changes the Deployment at the same time."""
    found = await client.get(DEPLOYMENT, key)
    containers: list[Object] = found["spec"]["template"]["spec"]["containers"]
    if all(one["name"] != params.container for one in containers):
        raise Refused("ContainerNotFound", f"Deployment {key} has no container {params.container}")
    changed = [{**one, "image": params.image} if one["name"] == params.container else one for one in containers]
    patch = {
        "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
        "spec": {"template": {"spec": {"containers": changed}}},
    }
    await client.merge(DEPLOYMENT, key, patch)


async def delete_pod(client: Client, key: Key, approved: datetime) -> None:
    """Delete a pod; one that is younger than the approval is another one of that name."""
    found = await client.get(POD, key)
    made = datetime.fromisoformat(found["metadata"]["creationTimestamp"]).astimezone(UTC)
    if made < approved:
        await client.delete(POD, key, uid=found["metadata"]["uid"])
