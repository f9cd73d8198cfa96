"""The root command and its lazy commands: `kars --help` imports click and this file, nothing else.

Exit statuses: 0 done, 1 failed, 2 usage, 3 not found, 4 denied by a policy, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from kars.errors import KarsError

# Command: where it lives, and the one line of the overview (a test holds it to the command's own help).
COMMANDS = {
    "router": ("kars.cli.router:router", "Run the governed router in front of a model server."),
    "demo": (
        "kars.cli.demo:demo",
        "Run a demo model server and a router in front of it, and show the calls.",
    ),
    "probe": ("kars.cli.probe:probe", "Call this sandbox's own router."),
    "audit": ("kars.cli.audit:audit", "Check the audit log."),
    "policy": (
        "kars.cli.policy:policy",
        "Check policy files, and make egress allowlists of what was recorded.",
    ),
    "egress": ("kars.cli.egress:egress", "Show and steer what this sandbox's router lets out."),
    "why": ("kars.cli.why:why", "Explain a decision of the router."),
    "controller": ("kars.cli.controller:controller", "Keep a cluster as its resources say."),
    "crds": ("kars.cli.crds:crds", "Show the custom resource definitions, and apply them to a cluster."),
    "version": ("kars.cli.version:version", "Print the versions of kars and its core."),
}

EPILOG = """\b
Examples:
  kars demo
  kars router --upstream http://127.0.0.1:11434/v1 --policy ./policy
  kars egress blocked --since 10m
  kars policy learn --write allowlist.json
  kars why 3f9c1a2b4d5e6f70
  kars audit verify /var/log/kars/audit
"""


class Lazy(click.Group):
    """A group that imports a command when it is called, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Commands in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the overview from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Lazy, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """kars: run AI agents under one policy, one identity and one audit chain."""


def run(arguments: Sequence[str]) -> int:
    """Run a command; the exit status. Data goes to standard output, words to people to standard error."""
    try:
        status: Any = cli.main(list(arguments), prog_name="kars", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except KarsError as error:
        return complain(error)
    except BrokenPipeError:
        # The reader of a pipe left (`kars ... | head`); Python's own flush at exit must not complain again.
        sys.stderr.close()
        return 0
    return status if isinstance(status, int) else 0


def complain(error: KarsError) -> int:
    """Say what went wrong and what may help; returns the exit status."""
    from kars.router.complain import complain as say

    return say(error)
