"""One generic reconciler for every policy kind, a table row each; and the kinds with a life of their own.

publisher      resolve, compile, bring, ask, tell: the same for every kind
table          what tells one kind from another
referrers      which sandboxes refer to which policy
confirmation   which of them have it in force
status         the status of a resource, as the API has it
mcp jwks       McpServer: its signing key, and its issuer's keys
evaluations jobs    KarsEval: its runs
auth           KarsAuthConfig: the one that counts
approvals      EgressApproval: hosts for a time
sre repairs    KarsSREAction: a change that a person approved
pairing        KarsPairing: its time
"""

from __future__ import annotations

from kars.controller.policies import table
from kars.controller.policies.approvals import Approvals
from kars.controller.policies.auth import AuthConfigs
from kars.controller.policies.evaluations import Evaluations
from kars.controller.policies.mcp import McpServers
from kars.controller.policies.pairing import Pairings
from kars.controller.policies.publisher import Publisher
from kars.controller.policies.sre import Actions
from kars.controller.reconcile import Reconciler


def reconcilers() -> tuple[Reconciler, ...]:
    """Make the reconciler of every kind but KarsSandbox."""
    return (
        Publisher(table.INFERENCE),
        Publisher(table.TOOLS),
        Publisher(table.MEMORY),
        McpServers(),
        Publisher(table.CARD),
        Publisher(table.TRUST),
        Evaluations(),
        AuthConfigs(),
        Approvals(),
        Actions(),
        Pairings(),
    )
