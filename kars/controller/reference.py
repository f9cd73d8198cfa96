"""Write the reference of the controller's variables: `python -m kars.controller.reference docs/controller.md`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kars.settings.controller import Controller, Platform
from kars.settings.variables import FIRST_OF, GROUPS, Variable

HEAD = """\
# The controller

<!-- Written by `make docs` from kars/settings/variables.py. Change the table, not this file. -->

`kars controller` keeps a cluster as its resources say: KarsSandboxes become hardened pods, policies become what the
routers enforce, and statuses say what is in force. [resources.md](resources.md) has the resources.

It runs in the cluster by its chart, or anywhere with a kubeconfig (`--kubeconfig`, `--context`). The definitions of the
resources must be there: `kars crds apply` installs them.

## Replicas, health and the way out

Of several replicas one holds the lease and writes; the others watch, so that they can take over within seconds.
SIGTERM lets what is under way finish (20 s at most) and gives the lease up. A replica that loses the lease stops its
workers at once and exits.

| Exit status | Why |
|---|---|
| 0 | Ended as told. |
| 1 | Another took the lease, the API server cannot be reached at the start, or CONTROLLER_METRICS_ADDR is taken. |
| 2 | A variable has a value that is refused; the text names it. |
| 3 | There is no kubeconfig or no such context, or the definitions of the resources are not installed. |
| 4 | Not allowed to list them, or the account is not known. |

| Path at CONTROLLER_METRICS_ADDR | What it says |
|---|---|
| `/healthz`, `/livez` | `ok` while the loop turns and every task lives. |
| `/readyz` | `ok` once every kind was listed and each was heard of within three minutes; else what is not. |
| `/metrics` | Counters for Prometheus, below. |

## Variables

They are read once, at start. A value that cannot be right is refused by name; an empty one counts as unset, except
where the table says otherwise.
"""

METRICS = """
## Metrics

| Metric | Labels | What it counts |
|---|---|---|
"""


def page() -> str:
    """Make the whole page."""
    parts = [HEAD]
    for group, rows in GROUPS.items():
        parts.append(f"\n### {group}\n\n| Variable | Default | What it does |\n|---|---|---|\n")
        parts.extend(f"| `{row.name}` | {shown(row)} | {cell(row.help)} |\n" for row in rows)
    parts.append(METRICS)
    parts.extend(f"| `{name}` | {', '.join(labels) or '—'} | {cell(text)} |\n" for name, labels, text in metrics())
    return "".join(parts)


def plain() -> str:
    """Make the list of variables for a terminal."""
    found = []
    for group, rows in GROUPS.items():
        found.append(f"{group}:")
        for row in rows:
            value = default(row)
            found.append(f"  {row.name}{f' [{value}]' if value else ''}\n      {row.help}.")
    return "\n".join(found)


def shown(row: Variable) -> str:
    """Return the cell of a default."""
    value = default(row)
    return f"`{value}`" if value else "—"


def default(row: Variable) -> str:
    """Return what counts without the variable, as text; empty when that is nothing, or another variable's."""
    if not row.field or any(row.name in names[1:] for names in FIRST_OF):
        return ""
    value: Any = Controller(platform=Platform(), identity="")
    for step in row.field.split(".", 2):
        value = value[step] if isinstance(value, dict) else getattr(value, step)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if isinstance(value, dict | tuple) else str(value)


def metrics() -> list[tuple[str, list[str], str]]:
    """Return name, labels and text of every metric."""
    from kars.controller import scrape
    from kars.controller.metrics import Metrics

    made = Metrics()
    found = [
        (one._name + ("_total" if one._type == "counter" else ""), list(one._labelnames), one._documentation)  # noqa: SLF001
        for one in vars(made).values()
        if hasattr(one, "_labelnames")
    ]
    return sorted([*found, *scrape.ROWS])


def cell(text: str) -> str:
    """Keep a text inside its table cell."""
    return text.replace("|", "\\|").rstrip(".") + "."


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
