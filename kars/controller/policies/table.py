"""The policy kinds as rows: what tells one from another; `publisher` does the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import msgspec

from kars.controller.cluster import Cluster
from kars.controller.policies import referrers
from kars.kube.types import Key
from kars.model.a2a import A2AAgent
from kars.model.auth import KarsAuthConfig
from kars.model.base import GROUP, Resource
from kars.model.common import OciArtifactRef
from kars.model.evaluation import KarsEval
from kars.model.inference import InferencePolicy
from kars.model.mcp import McpServer
from kars.model.memory import KarsMemory
from kars.model.sandbox import KarsSandbox
from kars.model.tools import ToolPolicy
from kars.model.trust import TrustGraph
from kars.policy.compiled import a2a, auth, evaluation, inference, mcp, memory, tools, trust
from kars.policy.compiled.outcome import Compiled, Given

Bundle = OciArtifactRef | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of policy."""

    kind: type[Resource]
    # The word of the kind in its finalizer, `kars.azure.com/<word>-cleanup`, and in its field manager.
    word: str
    manager: str = ""
    # What comes of a resource, and what the ConfigMap of it is called: before and after the resource's name.
    render: Callable[[Any, Given], Compiled]
    before: str
    after: str
    # Under which reason it is told that the ConfigMap could not be written.
    unwritten: str
    # The signed artifact in place of the spec's own words.
    bundle: Callable[[Any], Bundle] = lambda _: None
    # Which policies of the kind a sandbox refers to; None when no sandbox is asked. And which of those that refer to
    # one are really its.
    refers: Callable[[KarsSandbox, Cluster], Iterable[Key]] | None = None
    governs: Callable[[Key, AbstractSet[Key], Cluster], AbstractSet[Key]] = lambda _, found, __: found
    # The only sandbox that counts, where the resource names one.
    sandbox: Callable[[Any], str] = lambda _: ""
    # The member of the status that says when it was compiled; it moves with the document.
    compiled_at: str = ""
    failed: Literal["Degraded", "Failed"] = "Degraded"

    @property
    def finalizer(self) -> str:
        """The finalizer of the kind."""
        return f"{GROUP}/{self.word}-cleanup"

    @property
    def field_manager(self) -> str:
        """Who owns the fields that are written."""
        return f"kars-controller/{self.manager or self.word}"

    def config_map(self, key: Key, namespace: str) -> Key:
        """Return where the ConfigMap of a resource is; `namespace` is the controller's."""
        return Key(key.namespace or namespace, f"{self.before}{key.name}{self.after}")

    def owner(self, name: str) -> str:
        """Return whose ConfigMap has a name; empty when it is none of this kind."""
        inner = name.removeprefix(self.before).removesuffix(self.after)
        return inner if inner and name == f"{self.before}{inner}{self.after}" else ""


INFERENCE = Row(
    kind=InferencePolicy,
    word="inferencepolicy",
    render=inference.render,
    before="inferencepolicy-",
    after="-profile",
    unwritten="ProfileWriteFailed",
    bundle=lambda policy: policy.spec.bundle_ref,
    refers=referrers.inference,
    sandbox=lambda policy: policy.spec.applies_to.sandbox_name or "",
    compiled_at="lastCompiledAt",
)
TOOLS = Row(
    kind=ToolPolicy,
    word="toolpolicy",
    render=tools.render,
    before="toolpolicy-",
    after="-profile",
    unwritten="ProfileWriteFailed",
    bundle=lambda policy: policy.spec.agt_profile and policy.spec.agt_profile.bundle_ref,
    refers=referrers.tools,
    governs=referrers.governed,
    compiled_at="lastCompiledAt",
)
MEMORY = Row(
    kind=KarsMemory,
    word="karsmemory",
    render=memory.render,
    before="karsmemory-",
    after="-binding",
    unwritten="BindingWriteFailed",
    bundle=lambda memory: memory.spec.bundle_ref,
    refers=referrers.memory,
    sandbox=lambda memory: memory.spec.sandbox_ref.name,
    compiled_at="lastReconciledAt",
    failed="Failed",
)
MCP = Row(
    kind=McpServer,
    word="mcpserver",
    manager="mcp",
    render=mcp.render,
    before="mcp-",
    after="-jwks",
    unwritten="ProfileWriteFailed",
    bundle=lambda server: server.spec.bundle_ref,
    compiled_at="lastProbedAt",
)
CARD = Row(
    kind=A2AAgent,
    word="a2aagent",
    render=a2a.render,
    before="a2aagent-",
    after="-card",
    unwritten="CardWriteFailed",
    compiled_at="lastCompiledAt",
)
TRUST = Row(
    kind=TrustGraph,
    word="trustgraph",
    render=trust.render,
    before="trustgraph-",
    after="-projection",
    unwritten="ProjectionWriteFailed",
    compiled_at="lastReconciledAt",
)
EVALUATION = Row(
    kind=KarsEval,
    word="karseval",
    render=evaluation.render,
    before="karseval-",
    after="-corpus",
    unwritten="CorpusWriteFailed",
    bundle=lambda evaluation: evaluation.spec.corpus.bundle_ref,
)
AUTH = Row(
    kind=KarsAuthConfig,
    word="karsauthconfig",
    render=auth.render,
    before="kars-auth-sidecar-env",
    after="",
    unwritten="ProfileWriteFailed",
)
