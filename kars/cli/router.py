"""`kars router`: the sidecar. This file is its help; a run goes from `kars.cli.main` straight to the process."""

from __future__ import annotations

import click

from kars.router import flags, process

EXAMPLES = (
    "kars router --upstream http://127.0.0.1:11434/v1",
    "kars router --upstream https://api.openai.com/v1 --api-key-file key --policy ./policy --audit ./audit",
    "kars router --upstream http://127.0.0.1:11434/v1 --egress-policy ./egress --egress-mode strict",
    "ANTHROPIC_BASE_URL=https://api.anthropic.com ANTHROPIC_API_KEY=... ROUTER_PORT=0 kars router",
)


class Router(click.Command):
    """A command whose options and variables come from the tables that the process itself reads."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the flags, then every variable by group."""
        from kars.router import tools

        with formatter.section("Options"):
            formatter.write_dl([(f"{flag} {takes}", text) for flag, takes, text in flags.FLAGS])
        for group, rows in tools.variables().items():
            with formatter.section(f"{group} (environment)"):
                for row in rows:
                    default = f" [{row.default}]" if row.default else ""
                    formatter.write_text(f"{row.name}{default}")
                    with formatter.indentation():
                        formatter.write_text(f"{row.help}.")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples."""
        with formatter.section("Examples"):
            for example in EXAMPLES:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


@click.command(cls=Router, context_settings={"ignore_unknown_options": True, "max_content_width": 110})
@click.argument("arguments", nargs=-1, metavar="", type=click.UNPROCESSED)
def router(arguments: tuple[str, ...]) -> int:
    """Run the governed router in front of a model server.

    Serves the OpenAI and Anthropic APIs, streams through under policy, meters, bounds and audits every call, until
    SIGTERM. Settings come from the environment; a flag wins over its variable; a wrong value is refused by name.
    """
    return process.main(arguments)
