"""Write the reference of the router's variables: `python -m kars.router.reference docs/configuration.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from kars.router import flags, tools

HEAD = """\
# Configuration

<!-- Written by `make docs` from the core's own table of variables. Change the table, not this file. -->

The router reads its settings once, at start, from the environment. A value that it cannot use is refused by name
before anything listens: `kars router` exits with status 2 and says what the variable takes. An empty value counts as
unset, except where the table says that it turns something off. `GET /configz` (admin token) shows what is in
force, secrets left out.

## Flags of `kars router`

A flag is another name for a variable and wins over it. `--upstream` picks the variable by host: `*.azure.com` sets
`AZURE_OPENAI_ENDPOINT`, `*.anthropic.com` sets `ANTHROPIC_BASE_URL`, everything else `OPENAI_BASE_URL`;
`--api-key-file` sets the key beside it.

| Flag | What it does |
|---|---|
"""


def page() -> str:
    """Make the whole page."""
    parts = [HEAD, *(f"| `{flag} {takes}` | {cell(text)} |\n" for flag, takes, text in flags.FLAGS)]
    for group, rows in tools.variables().items():
        parts.append(f"\n## {group}\n\n| Variable | Default | What it does |\n|---|---|---|\n")
        parts.extend(
            f"| `{row.name}` | {f'`{row.default}`' if row.default else '—'} | {cell(row.help)} |\n" for row in rows
        )
    return "".join(parts)


def cell(text: str) -> str:
    """Keep a text inside its table cell."""
    return text.replace("|", "\\|").rstrip(".") + "."


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
