"""`kars controller`: keep a cluster as its resources say."""

from __future__ import annotations

import click

EPILOG = """\b
Examples:
  kars controller
  kars controller --kubeconfig ~/.kube/config --context kind-kars --no-leader-elect
  FOUNDRY_ENDPOINT=https://name.services.ai.azure.com LOG_LEVEL=debug kars controller

\b
Settings come from variables: `kars controller --variables` lists every one, as does
docs/controller.md. SIGTERM lets what is under way finish, and gives up the lease.
Exit statuses: 0 ended as told, 1 lost the lease or the cluster, 2 a setting is wrong,
3 no kubeconfig, or no definitions of the resources, 4 not allowed to list them.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--kubeconfig", metavar="FILE", default="", help="Account to use [KUBECONFIG, the pod's, ~/.kube/config]."
)
@click.option("--context", metavar="NAME", default="", help="Context of the kubeconfig [its current one].")
@click.option(
    "--leader-elect/--no-leader-elect",
    default=None,
    help="Whether to wait for the lease before writing [LEADER_ELECTION_ENABLED, else yes].",
)
@click.option("--variables", is_flag=True, help="List the variables and exit.")
def controller(kubeconfig: str, context: str, leader_elect: bool | None, variables: bool) -> int:
    """Keep a cluster as its resources say.

    Turns KarsSandboxes into hardened pods and policies into what routers enforce, and says in their statuses what is in
    force. Outside a cluster it works with a kubeconfig.
    """
    from kars import settings

    if variables:
        from kars.controller import reference

        click.echo(reference.plain())
        return 0
    from kars.controller import process, roster
    from kars.settings.controller import from_environment

    overrides = {} if leader_elect is None else {"LEADER_ELECTION_ENABLED": str(leader_elect).lower()}
    chosen = from_environment(settings.child(overrides))
    return process.main(chosen, roster.reconcilers, kubeconfig=kubeconfig, context=context)
