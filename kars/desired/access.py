"""Who a sandbox is to the cluster: its namespace, its account, and what its router may do."""

from __future__ import annotations

from kars.desired import names
from kars.desired.config import metadata
from kars.desired.facts import Facts
from kars.kube.types import Object
from kars.model.base import API_VERSION, GROUP
from kars.model.sandbox import KarsSandbox

RBAC = "rbac.authorization.k8s.io"
# Times the children that may be made, which there may be as resources.
CROWD = 2


def namespace(facts: Facts) -> Object:
    """Return the namespace. Only the guard's container keeps a pod from the restricted standard."""
    level, told = ("privileged", "baseline") if facts.platform.guard == "init" else ("restricted", "restricted")
    meta = metadata(
        facts,
        names.namespace(facts.name),
        {
            names.APP_NAME: names.APP,
            names.APP_COMPONENT: "sandbox",
            names.ROLE: "sandbox",
            names.ISOLATED: "strict",
            f"{names.POD_SECURITY}/enforce": level,
            f"{names.POD_SECURITY}/audit": told,
            f"{names.POD_SECURITY}/warn": told,
        },
    )
    del meta["namespace"]
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def account(facts: Facts) -> Object:
    """Return the ServiceAccount `sandbox`, whose token no pod gets unasked.

    What the sandbox says of Azure's services stands in its annotations.
    """
    notes = {}
    if facts.platform.workload_identity_client_id:
        notes[names.CLIENT_ID] = facts.platform.workload_identity_client_id
    for index, one in enumerate(facts.sandbox.spec.azure_services):
        notes[f"{GROUP}/service-{index}"] = one.service
        if one.account:
            notes[f"{GROUP}/service-{index}-account"] = one.account
        if one.permissions:
            notes[f"{GROUP}/service-{index}-permissions"] = ",".join(one.permissions)
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(facts, names.ACCOUNT, annotations=notes),
        "automountServiceAccountToken": False,
    }


def spawning(facts: Facts) -> list[Object]:
    """Return what lets the router make sandboxes beside its own, and look at and take down those that it made.

    What it makes is for an admission policy to judge: RBAC cannot see labels. A rule without names would mean every
    sandbox, so without children there is none. Where as many wait for a place as have one, it may make no more: what
    waits fills the cluster's store all the same.
    """
    if not facts.spawns:
        return []
    group = {"apiGroups": [GROUP], "resources": [KarsSandbox.NAMES.plural]}
    full = len(facts.children) >= CROWD * facts.platform.max_children
    rules: list[Object] = [] if full else [{**group, "verbs": ["create"]}]
    if facts.children:
        rules.append({**group, "resourceNames": sorted(facts.children), "verbs": ["get", "delete"]})
    name = names.spawner(facts.name)
    return [
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": beside(facts, name), "rules": rules},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": beside(facts, name),
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": names.ACCOUNT, "namespace": names.namespace(facts.name)}],
        },
    ]


def beside(facts: Facts, name: str) -> Object:
    """Return the metadata of an object in the resource's own namespace, which goes with the resource."""
    resource = facts.sandbox.metadata
    meta = metadata(facts, name, namespace=resource.namespace)
    if resource.uid:
        meta["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": "KarsSandbox",
                "name": resource.name,
                "uid": resource.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]
    return meta
