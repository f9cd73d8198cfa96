"""Gather the facts of one sandbox: what it refers to, as compiled and as it stands. Reads cost no request.

What stands in the way is a `Blocked` with the reason that the sandbox's conditions show; what should come by itself in
a moment (a policy that is there but not compiled yet) is one that is not `final`.
"""

from __future__ import annotations

import re
import secrets
from typing import TypeVar

import msgspec

from kars.controller.cluster import Cluster
from kars.controller.policies.mcp import allowed
from kars.controller.references import governing, mcp_servers
from kars.desired.facts import McpFacts, ModelFacts, Source
from kars.kube import types
from kars.kube.types import Key, Object
from kars.model.a2a import A2AAgent
from kars.model.base import Resource
from kars.model.inference import InferencePolicy
from kars.model.mcp import McpServer
from kars.model.memory import KarsMemory
from kars.model.sandbox import KarsSandbox
from kars.model.tools import ToolPolicy
from kars.model.trust import TrustGraph
from kars.policy.compiled import trust

# Bytes of the tokens that a sandbox's own parts prove themselves with, by the Secret that holds them.
TOKENS = {"gateway-token": 16, "router-admin-token": 32}

Kind = TypeVar("Kind", bound=Resource)

# An image by digest, or by tag after its last slash; neither may have white space.
PINNED = re.compile(r"\S+@sha256:[0-9a-f]{8,}\Z")
TAGGED = re.compile(r"\S*?[^\s/]+:[\w][\w.-]*\Z")


class Blocked(Exception):
    """The sandbox cannot be made as it is meant; `final`: only a change of a resource or of the settings can help."""

    def __init__(self, reason: str, message: str, *, final: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.final = final


def check_runtime(sandbox: KarsSandbox, *, strict: bool) -> str:
    """Return an advice about a BYO image, empty when there is none; `Blocked` when it cannot run."""
    runtime = sandbox.spec.runtime
    if runtime.kind == "SemanticKernel":
        raise Blocked("AdapterMissing", "there is no adapter for runtime SemanticKernel yet; use another runtime")
    if sandbox.spec.sandbox.allow_privilege_escalation:
        # A set-user-id program of the image could become the router's user, which the guard lets out.
        raise Blocked("SpecInvalid", "sandbox.allowPrivilegeEscalation must be false: with it the guard can be passed")
    if runtime.byo is None or PINNED.fullmatch(runtime.byo.image) or TAGGED.fullmatch(runtime.byo.image):
        return ""
    advice = f"runtime.byo.image {runtime.byo.image!r} has neither a tag nor a sha256 digest"
    if strict:
        raise Blocked("BYOContractInvalid", advice)
    return advice


def check_endpoint(cluster: Cluster, model: ModelFacts) -> None:
    """Refuse a sandbox whose model calls would have nowhere to go."""
    platform = cluster.settings.platform
    if not (model.endpoint or platform.foundry_endpoint or platform.azure_openai_endpoint):
        raise Blocked(
            "DependencyMissing",
            "no model provider is configured: set FOUNDRY_ENDPOINT or AZURE_OPENAI_ENDPOINT on the controller, or"
            " modelPreference.primary.endpoint in the InferencePolicy",
        )


def find_model(sandbox: KarsSandbox, cluster: Cluster) -> tuple[ModelFacts, Source]:
    """Return what the InferencePolicy says, from the document that the router will read, so inline or signed alike."""
    name = sandbox.spec.inference_ref.name
    key = Key(sandbox.metadata.namespace, name)
    policy = required(cluster, InferencePolicy, key, "InferencePolicyNotFound")
    check_target(sandbox, policy)
    source = published(cluster, key, f"inferencepolicy-{name}-profile", "InferencePolicy")
    document = read(source, "inference-policy.json")
    if document is None:
        # Somebody's hands were on it; its reconciler puts it back within a moment.
        raise Blocked("PolicyNotCompiled", f"what InferencePolicy {name} was compiled to is not whole", final=False)
    preference = (document.get("modelPreference") or {}).get("primary") or {}
    if not preference.get("deployment"):
        raise Blocked("SpecInvalid", f"InferencePolicy {name} names no model: set modelPreference.primary.deployment")
    inline = policy.spec.model_preference
    return ModelFacts(
        deployment=preference["deployment"],
        provider=preference.get("provider", ""),
        endpoint=(inline.primary.endpoint or "") if inline else "",
    ), source


def check_target(sandbox: KarsSandbox, policy: InferencePolicy) -> None:
    """Refuse a policy that is meant for another sandbox."""
    target = policy.spec.applies_to
    name = sandbox.metadata.name
    if target.sandbox_name is not None and target.sandbox_name != name:
        raise Blocked(
            "InferencePolicyNotFound",
            f"InferencePolicy {policy.metadata.name} is for sandbox {target.sandbox_name}, not for {name}",
        )
    if any(sandbox.metadata.labels.get(label) != value for label, value in target.sandbox_match_labels.items()):
        raise Blocked(
            "InferencePolicyNotFound",
            f"InferencePolicy {policy.metadata.name} is for sandboxes with labels that {name} does not have",
        )


def find_tools(sandbox: KarsSandbox, cluster: Cluster) -> Source | None:
    """Return the profile of the ToolPolicy that governs, None without governance."""
    key = governing(sandbox, cluster)
    if key is None:
        return None
    required(cluster, ToolPolicy, key, "ToolPolicyNotFound")
    source = published(cluster, key, f"toolpolicy-{key.name}-profile", "ToolPolicy")
    if not source.data.get("agt-profile.yaml", "").strip():
        raise Blocked("SpecInvalid", f"ToolPolicy {key.name} has no agtProfile, which a governed sandbox needs")
    return source


def find_memory(sandbox: KarsSandbox, cluster: Cluster) -> Source | None:
    """Return the memory binding, when the sandbox has one and may have it."""
    if sandbox.spec.memory_ref is None:
        return None
    key = Key(sandbox.metadata.namespace, sandbox.spec.memory_ref.name)
    memory = required(cluster, KarsMemory, key, "MemoryNotFound")
    if memory.spec.sandbox_ref.name != sandbox.metadata.name:
        raise Blocked("MemoryNotAllowed", f"KarsMemory {key.name} is for sandbox {memory.spec.sandbox_ref.name} only")
    return published(cluster, key, f"karsmemory-{key.name}-binding", "KarsMemory")


def find_card(sandbox: KarsSandbox, cluster: Cluster) -> Source | None:
    """Return the agent card, when the sandbox shows one."""
    a2a = sandbox.spec.a2a
    if a2a is None or not a2a.enabled or a2a.agent_ref is None:
        return None
    key = Key(sandbox.metadata.namespace, a2a.agent_ref.name)
    required(cluster, A2AAgent, key, "A2AAgentNotFound")
    return published(cluster, key, f"a2aagent-{key.name}-card", "A2AAgent")


async def find_servers(sandbox: KarsSandbox, cluster: Cluster) -> tuple[tuple[McpFacts, ...], tuple[str, ...]]:
    """Return the McpServers that the sandbox is given, and a sentence for each that it is not.

    One server that is missing takes neither the others nor the sandbox down.
    """
    given, missing = [], []
    for name in mcp_servers(sandbox):
        key = Key(sandbox.metadata.namespace, name)
        server = cluster.resource(McpServer, key)
        keys = stored(cluster, types.CONFIG_MAP, key, f"mcp-{name}-jwks", "McpServer")
        if server is None:
            missing.append(f"McpServer {name} is not there")
        elif not allowed(server, sandbox):
            missing.append(
                f"McpServer {name} does not allow this sandbox: its labels are not those of allowedSandboxes"
            )
        elif keys is None:
            missing.append(f"McpServer {name} is not published yet")
        else:
            given.append(
                McpFacts(
                    name=name,
                    keys=keys,
                    signing=await secret(cluster, Key(key.namespace, f"mcp-{name}-signing"), "McpServer", name),
                    bearer_from_env=server.spec.bearer_from_env or "",
                )
            )
    return tuple(given), tuple(missing)


def find_trust(sandbox: KarsSandbox, cluster: Cluster) -> tuple[str, str, int] | None:
    """Return the sandbox's part of the trust graphs, None when there are none."""
    documents = []
    for name in sorted(graph.metadata.name for graph in cluster.resources(TrustGraph)):
        key = Key(cluster.settings.namespace, f"trustgraph-{name}-projection")
        found = cluster.children.find(types.CONFIG_MAP, key)
        document = read(source(found, TrustGraph.__name__, name), "graph.json") if found else None
        if document is not None:
            documents.append(document)
    return trust.slice_of(sandbox.metadata.name, documents)


async def find_credentials(cluster: Cluster) -> Source | None:
    """Return the development keys that routers are given, where some are configured."""
    name = cluster.settings.platform.credentials_secret
    if not name:
        return None
    found = await secret(cluster, Key(cluster.settings.namespace, name), "Secret", name)
    if found is None:
        raise Blocked("DependencyMissing", f"Secret {name} with the model keys is not there", final=False)
    return found


def find_blocklist(cluster: Cluster) -> Source | None:
    """Return the platform's own blocklist, where one is configured and there."""
    name = cluster.settings.platform.blocklist_config_map
    found = cluster.config_map(name) if name else None
    return source(found, "ConfigMap", name) if found else None


async def secret(cluster: Cluster, key: Key, owner_kind: str, owner_name: str) -> Source | None:
    """Return a Secret to copy, with its data."""
    found = await cluster.read_secret(key)
    return source(found, owner_kind, owner_name) if found else None


def new_tokens(namespace: str, cluster: Cluster) -> dict[str, str]:
    """Make the tokens whose Secrets do not stand yet; those that stand are never written again."""
    return {
        name: secrets.token_hex(size)
        for name, size in TOKENS.items()
        if cluster.children.find(types.SECRET, Key(namespace, name)) is None
    }


def required(cluster: Cluster, kind: type[Kind], key: Key, reason: str) -> Kind:
    """Return a resource that the sandbox cannot do without."""
    found = cluster.resource(kind, key)
    if found is None:
        raise Blocked(reason, f"{kind.__name__} {key.name} is not there in namespace {key.namespace}, or is not valid")
    return found


def published(cluster: Cluster, key: Key, name: str, kind: str) -> Source:
    """Return the ConfigMap that a policy was compiled to."""
    source = stored(cluster, types.CONFIG_MAP, key, name, kind)
    if source is None:
        raise Blocked("PolicyNotCompiled", f"{kind} {key.name} is not compiled yet", final=False)
    return source


def stored(cluster: Cluster, kind: types.Type, key: Key, name: str, owner: str) -> Source | None:
    """Return what a policy's reconciler wrote, as something to copy."""
    found = cluster.children.find(kind, Key(key.namespace, name))
    if found is None:
        return None
    return source(found, owner, key.name)


def read(found: Source, file: str) -> Object | None:
    """Return a document that a policy was compiled to; None when it is not there or cannot be read."""
    try:
        document: Object = msgspec.json.decode(found.data.get(file, ""), type=dict)
    except msgspec.DecodeError:
        return None
    return document


def source(found: Object, owner_kind: str, owner_name: str) -> Source:
    """Describe an object to copy."""
    return Source(
        kind=found["kind"],
        name=found["metadata"]["name"],
        namespace=found["metadata"]["namespace"],
        data=found.get("data") or {},
        binary_data=found.get("binaryData") or {},
        type=found.get("type", ""),
        owner_kind=owner_kind,
        owner_name=owner_name,
    )
