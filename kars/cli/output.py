"""How commands print: a table for people, one versioned JSON document for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from kars import settings

API_VERSION = "cli.kars/v1"

STYLES = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1"}


def option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-o json|table`, handed to the command as `form`."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(["table", "json"]),
        default="table",
        help="Table for people or JSON.",
    )(command)


def document(kind: str, fields: Mapping[str, object]) -> None:
    """Print one JSON document with its version and kind."""
    click.echo(json.dumps({"apiVersion": API_VERSION, "kind": kind, **fields}, indent=2))


def table(rows: Iterable[tuple[str, str]]) -> None:
    """Print `name  value` rows, aligned."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        click.echo(f"{name:<{width}}  {value}")


def styled(text: str, style: str) -> str:
    """Colour a text where standard output takes colour."""
    return f"\033[{STYLES[style]}m{text}\033[0m" if settings.colours(sys.stdout) else text
