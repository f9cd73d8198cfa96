"""`kars version`."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from kars.cli import output


@click.command(epilog="\b\nExamples:\n  kars version\n  kars version -o json\n")
@output.option
def version(form: str) -> None:
    """Print the versions of kars and its core."""
    from kars.router import tools

    versions = {
        "kars": metadata.version("kars"),
        "core": tools.version(),
        "python": platform.python_version(),
    }
    if form == "json":
        output.document("Version", versions)
    else:
        click.echo(" ".join(f"{name} {number}" for name, number in versions.items()))
