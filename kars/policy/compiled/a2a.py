"""A2AAgent: the card of an agent, `agent.json`; the router that serves it signs it."""

from __future__ import annotations

from kars.kube.types import Object
from kars.model.a2a import A2AAgent
from kars.policy.compiled.canonical import compact, pretty, version_hash
from kars.policy.compiled.outcome import Compiled, Given, config_map, namespace_of

FILE = "agent.json"
# Of the A2A protocol, as the reference's cards have it.
PROTOCOL = "1.2"


def render(agent: A2AAgent, given: Given) -> Compiled:
    """Return the ConfigMap `a2aagent-<name>-card`."""
    namespace = namespace_of(agent, given)
    card = document(agent, namespace)
    version = version_hash(compact(card))
    name = f"a2aagent-{agent.metadata.name}-card"
    made = config_map(
        name,
        namespace=namespace,
        labels={"a2aagent": agent.metadata.name, "artifact": "agent-card"},
        annotations={"a2aagent-version-hash": version},
        data={FILE: pretty(card)},
    )
    status = {"agentCardConfigMapRef": {"name": name}, "versionHash": version}
    return Compiled(objects=(made,), version_hash=version, status=status)


def document(agent: A2AAgent, namespace: str) -> Object:
    """Return the card; the order of its members is part of the version hash."""
    spec, trust = agent.spec, agent.spec.trust
    return {
        "protocolVersion": PROTOCOL,
        "namespace": namespace,
        "name": agent.metadata.name,
        "displayName": spec.display_name,
        "description": spec.description,
        "endpointUrl": spec.endpoint_url,
        "productionMode": spec.production_mode,
        "capabilities": list(spec.capabilities),
        "signingKeys": [
            {"kid": key.kid, "alg": key.alg, "publicKeyB64u": key.public_key_b64u, "notAfter": key.not_after}
            for key in spec.signing_keys
        ],
        "trust": trust
        and {
            "requireSignedRequests": trust.require_signed_requests,
            "minSignaturesRequired": trust.min_signatures_required,
            "maxClockSkewSeconds": trust.max_clock_skew_seconds,
        },
        "federation": {
            "peers": [
                {
                    "label": peer.label,
                    "kind": peer.kind,
                    "agentRef": peer.agent_ref,
                    "endpointUrl": peer.endpoint_url,
                    "pinnedKid": peer.pinned_kid,
                }
                for peer in spec.federation
            ]
        },
        "policyRefs": spec.policy_refs and {"toolPolicy": spec.policy_refs.tool_policy},
    }
