"""Variables of containers: what every table has in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kars.desired.facts import Facts
from kars.kube.types import Object

Pair = tuple[str, str]

RELAY_URL = "ws://agentmesh-relay.agentmesh.svc.cluster.local:8765"
REGISTRY_URL = "http://agentmesh-registry.agentmesh.svc.cluster.local:8080"
CONTRACT_VERSION = "v1"
MESH_PROVIDER = "agt"


class Variables:
    """A container's variables in the order of their telling; none is there twice."""

    def __init__(self) -> None:
        self.rows: dict[str, Object] = {}

    def put(self, pairs: Mapping[str, str] | Iterable[Pair]) -> None:
        """Add values."""
        for name, value in dict(pairs).items():
            self.rows[name] = {"name": name, "value": value}

    def put_given(self, pairs: Mapping[str, str]) -> None:
        """Add those values that are not empty."""
        self.put({name: value for name, value in pairs.items() if value})

    def secret(self, name: str, secret: str, key: str, *, optional: bool = False) -> None:
        """Add a variable whose value stays in its Secret."""
        source: Object = {"name": secret, "key": key}
        if optional:
            source["optional"] = True
        self.rows[name] = {"name": name, "valueFrom": {"secretKeyRef": source}}

    def __contains__(self, name: str) -> bool:
        return name in self.rows

    def objects(self) -> list[Object]:
        """Return them as a container has them."""
        return list(self.rows.values())


def mesh(facts: Facts) -> dict[str, str]:
    """Return what governance says to agent and router alike; empty without governance."""
    governance = facts.governance
    if not governance.enabled:
        return {}
    parent = first_peer(governance.trusted_peers or "")
    return {
        "AGT_GOVERNANCE_ENABLED": "true",
        "AGT_TRUST_THRESHOLD": str(governance.trust_threshold),
        **({"AGT_TRUSTED_PEERS": governance.trusted_peers} if governance.trusted_peers else {}),
        **({"PARENT_SANDBOX": parent} if parent else {}),
        "AGT_REGISTRY_MODE": governance.registry_mode,
        "AGT_RELAY_URL": RELAY_URL,
        "AGT_REGISTRY_URL": REGISTRY_URL,
    }


def first_peer(peers: str) -> str:
    """Return the name of the first of `name:AMID,name:AMID,...`; empty when it is not of that form."""
    name, colon, identity = (part.strip() for part in peers.partition(",")[0].partition(":"))
    return name if colon and name and identity else ""


def mesh_identity(facts: Facts) -> dict[str, str]:
    """Return how the sandbox proves itself on the mesh, where an Entra agent identity is what that takes."""
    if facts.identity is None or not facts.identity.mesh:
        return {}
    audience = facts.identity.mesh_audience or facts.platform.mesh_auth_audience
    return {"MESH_AUTH_BACKEND": "EntraAgentIdentity", **({"MESH_AUTH_AUDIENCE": audience} if audience.strip() else {})}


def auth_mode(facts: Facts) -> str:
    """Return how the router proves itself to the model server: by a key where there can be one."""
    return "api-key" if facts.credentials is not None or facts.model.endpoint else "workload-identity"
