"""The twelve kinds, in the order in which they are listed and installed."""

from __future__ import annotations

from kars.model.a2a import A2AAgent
from kars.model.auth import KarsAuthConfig
from kars.model.base import Resource
from kars.model.egress import EgressApproval
from kars.model.evaluation import KarsEval
from kars.model.inference import InferencePolicy
from kars.model.mcp import McpServer
from kars.model.memory import KarsMemory
from kars.model.pairing import KarsPairing
from kars.model.sandbox import KarsSandbox
from kars.model.sre import KarsSREAction
from kars.model.tools import ToolPolicy
from kars.model.trust import TrustGraph

KINDS: dict[str, type[Resource]] = {
    kind.__name__: kind
    for kind in (
        KarsSandbox,
        KarsPairing,
        InferencePolicy,
        ToolPolicy,
        KarsMemory,
        McpServer,
        EgressApproval,
        A2AAgent,
        TrustGraph,
        KarsEval,
        KarsSREAction,
        KarsAuthConfig,
    )
}


def find(name: str) -> type[Resource] | None:
    """Find a kind by its name, plural, singular or short name, whatever the letter case."""
    wanted = name.lower().removesuffix(".kars.azure.com")
    for kind in KINDS.values():
        if wanted in {kind.__name__.lower(), kind.NAMES.plural, kind.NAMES.short, *kind.NAMES.also}:
            return kind
    return None
