"""How commands print: a table for people, one versioned JSON document for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def columns(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[str] = frozenset()) -> list[str]:
    """Lay rows out under heads, aligned; `right` names the columns of numbers. Cells are made safe for a terminal."""
    cells = [list(heads), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    aligned = (
        "  ".join(
            cell.rjust(width) if head in right else cell.ljust(width)
            for head, cell, width in zip(heads, row, widths, strict=True)
        )
        for row in cells
    )
    return [line.rstrip() for line in aligned]


def plain(text: str) -> str:
    """Show a text that an agent chose: nothing in it may move the cursor, change colours or turn the reading order."""
    return "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in text)


def styled(text: str, style: str) -> str:
    """Colour a text where standard output takes colour."""
    return f"\033[{STYLES[style]}m{text}\033[0m" if settings.colours(sys.stdout) else text
