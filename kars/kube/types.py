"""Which API serves a kind of object, and the paths of its requests."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from kars.model.base import API_VERSION, Resource

# An object of the API as JSON reads it.
Object = dict[str, Any]


class Key(NamedTuple):
    """Where an object is; the namespace of a cluster-scoped one is empty."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Type(msgspec.Struct, frozen=True):
    """A kind that the API server serves."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, *, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the path of a collection, an object or its subresource; no namespace means all of them."""
        parts = ["", "api" if "/" not in self.api_version else "apis", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=":"))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


NAMESPACE = Type("v1", "Namespace", "namespaces", namespaced=False)
SERVICE_ACCOUNT = Type("v1", "ServiceAccount", "serviceaccounts")
SECRET = Type("v1", "Secret", "secrets")
CONFIG_MAP = Type("v1", "ConfigMap", "configmaps")
SERVICE = Type("v1", "Service", "services")
POD = Type("v1", "Pod", "pods")
VOLUME_CLAIM = Type("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
VOLUME = Type("v1", "PersistentVolume", "persistentvolumes", namespaced=False)
RESOURCE_QUOTA = Type("v1", "ResourceQuota", "resourcequotas")
DEPLOYMENT = Type("apps/v1", "Deployment", "deployments")
STATEFUL_SET = Type("apps/v1", "StatefulSet", "statefulsets")
DAEMON_SET = Type("apps/v1", "DaemonSet", "daemonsets")
JOB = Type("batch/v1", "Job", "jobs")
CRON_JOB = Type("batch/v1", "CronJob", "cronjobs")
NETWORK_POLICY = Type("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
ROLE = Type("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Type("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE_BINDING = Type("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", False)
DISRUPTION_BUDGET = Type("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
ENDPOINT_SLICE = Type("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
LEASE = Type("coordination.k8s.io/v1", "Lease", "leases")
EVENT = Type("events.k8s.io/v1", "Event", "events")
DEFINITION = Type("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", False)

BUILT_IN = {
    (one.api_version, one.kind): one
    for one in (
        NAMESPACE,
        SERVICE_ACCOUNT,
        SECRET,
        CONFIG_MAP,
        SERVICE,
        POD,
        VOLUME_CLAIM,
        VOLUME,
        RESOURCE_QUOTA,
        DEPLOYMENT,
        STATEFUL_SET,
        DAEMON_SET,
        JOB,
        CRON_JOB,
        NETWORK_POLICY,
        ROLE,
        ROLE_BINDING,
        CLUSTER_ROLE_BINDING,
        DISRUPTION_BUDGET,
        ENDPOINT_SLICE,
        LEASE,
        EVENT,
        DEFINITION,
    )
}


def custom(kind: type[Resource]) -> Type:
    """Return the type of one of our own kinds."""
    return Type(API_VERSION, kind.__name__, kind.NAMES.plural, kind.NAMES.namespaced)


def of(value: Object) -> Type:
    """Return the type of an object that bears apiVersion and kind; KeyError for one that nobody here makes."""
    from kars.model.kinds import KINDS

    api_version, kind = value["apiVersion"], value["kind"]
    if api_version == API_VERSION and kind in KINDS:
        return custom(KINDS[kind])
    return BUILT_IN[api_version, kind]


def key(value: Object) -> Key:
    """Return where an object is."""
    metadata = value["metadata"]
    return Key(metadata.get("namespace") or "", metadata["name"])
