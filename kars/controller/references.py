"""Which resources a sandbox refers to, in one place for both sides of each reference."""

from __future__ import annotations

from kars.controller.cluster import Cluster
from kars.kube.types import Key
from kars.model.sandbox import KarsSandbox
from kars.model.tools import ToolPolicy

# The ToolPolicy of sandboxes that name none; the chart installs it in the controller's namespace.
DEFAULT_TOOL_POLICY = "kars-default"


def tool_policy(sandbox: KarsSandbox) -> str | None:
    """Return the name of the ToolPolicy that governs, None without governance."""
    governance = sandbox.spec.governance
    if governance is None:
        return DEFAULT_TOOL_POLICY
    if not governance.enabled:
        return None
    return governance.tool_policy_ref.name if governance.tool_policy_ref else DEFAULT_TOOL_POLICY


def governing(sandbox: KarsSandbox, cluster: Cluster) -> Key | None:
    """Return where the governing ToolPolicy is: beside the sandbox, the default one else with the controller."""
    name = tool_policy(sandbox)
    if name is None:
        return None
    key = Key(sandbox.metadata.namespace, name)
    if name == DEFAULT_TOOL_POLICY and cluster.resource(ToolPolicy, key) is None:
        return Key(cluster.settings.namespace, name)
    return key


def mcp_servers(sandbox: KarsSandbox) -> tuple[str, ...]:
    """Return the names of the McpServers that the sandbox asks for."""
    governance = sandbox.spec.governance
    if governance is None or not governance.enabled:
        return ()
    if governance.mcp_server_ref is not None:
        return (governance.mcp_server_ref.name,)
    return tuple(ref.name for ref in governance.mcp_server_refs)
