"""What a sandbox depends on: each of these that changes is a reason to look at it again."""

from __future__ import annotations

from collections.abc import Iterable

from kars.controller import teardown
from kars.controller.cluster import SIGNER_POLICY, Cluster
from kars.controller.index import Target
from kars.controller.references import DEFAULT_TOOL_POLICY, mcp_servers, tool_policy
from kars.desired import names
from kars.kube.types import Key
from kars.model.sandbox import KarsSandbox

# As what a sandbox's own namespace counts, and everything in it.
INSIDE = "inside"


def dependencies(sandbox: KarsSandbox, cluster: Cluster) -> Iterable[Target]:
    """Return everything whose change concerns a sandbox."""
    namespace, name = sandbox.metadata.namespace, sandbox.metadata.name
    yield INSIDE, Key("", names.namespace(name))
    for kind, key in teardown.outside(sandbox, cluster):
        yield kind.kind, key
    yield "ConfigMap", Key(namespace, f"inferencepolicy-{sandbox.spec.inference_ref.name}-profile")
    yield "InferencePolicy", Key(namespace, sandbox.spec.inference_ref.name)
    policy = tool_policy(sandbox)
    if policy is not None:
        for place in {namespace, cluster.settings.namespace} if policy == DEFAULT_TOOL_POLICY else {namespace}:
            yield "ConfigMap", Key(place, f"toolpolicy-{policy}-profile")
            yield "ToolPolicy", Key(place, policy)
    if cluster.settings.platform.require_signed_images or has_signed_list(sandbox):
        yield "ConfigMap", Key(cluster.settings.namespace, SIGNER_POLICY)
    if sandbox.spec.memory_ref is not None:
        yield "ConfigMap", Key(namespace, f"karsmemory-{sandbox.spec.memory_ref.name}-binding")
        yield "KarsMemory", Key(namespace, sandbox.spec.memory_ref.name)
    for server in mcp_servers(sandbox):
        yield "ConfigMap", Key(namespace, f"mcp-{server}-jwks")
        yield "Secret", Key(namespace, f"mcp-{server}-signing")
        yield "McpServer", Key(namespace, server)
    if sandbox.spec.a2a is not None and sandbox.spec.a2a.agent_ref is not None:
        yield "ConfigMap", Key(namespace, f"a2aagent-{sandbox.spec.a2a.agent_ref.name}-card")
        yield "A2AAgent", Key(namespace, sandbox.spec.a2a.agent_ref.name)


def has_signed_list(sandbox: KarsSandbox) -> bool:
    """Whether a sandbox's allowlist is an artifact."""
    policy = sandbox.spec.network_policy
    return policy is not None and policy.allowlist_ref is not None
