"""What was measured, as a line, a table and a page's section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

Results = dict[str, Any]

BEGIN, END = "<!-- control: begin -->", "<!-- control: end -->"
# Writes for each object on creation, and requests in a steady state, that are aimed at.
MOST_WRITES, MOST_STEADY = 1.2, 0
# What the reference's controller took for 100 sandboxes and 100 policies, on another machine.
REFERENCE = (
    "The reference's controller, on another machine, pods left pending: 100 sandboxes and 100 policies in 147 s, 16 500"
    " writes, 38 s of CPU, 87 MB; it never settles."
)


def line(name: str, found: Results) -> str:
    """Return one phase's figures in a line for a terminal."""
    plain = {key: value for key, value in found.items() if isinstance(value, (int, float, str))}
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in plain.items())


def rows(results: Results) -> list[tuple[str, str]]:
    """Return what and how much."""
    phases, found = results["phases"], []
    if made := phases.get("create"):
        number, writes, objects = made["number"], made["writes"], made["made"]
        looks = sum(count for what, count in made["reconciles"].items() if what.endswith("success"))
        found += [
            ("from nothing to every sandbox Ready", f"{made['seconds']:.0f} s"),
            ("objects made for each sandbox and its policy", f"{objects / number:.1f}"),
            ("writes for each object (target: at most 1.2)", f"{writes / objects:.2f}"),
            ("requests for each sandbox and its policy, events among them", f"{made['asked'] / number:.1f}"),
            ("reconciles a second", f"{looks / made['seconds']:.0f}"),
            (
                "CPU of the controller, of the API server",
                "{controller:.1f} s, {api_server:.1f} s".format_map(made["cpu_seconds"]),
            ),
            (
                "memory of the controller: at its peak, settled",
                f"{made['memory']['peak_mb']:.0f} MB, {made['memory_settled']['rss_mb']:.0f} MB",
            ),
        ]
    for name, what in (("steady", "nothing changes"), ("resync", "everything is looked at once more")):
        if still := phases.get(name):
            asked = sum(still["beyond"].values())
            found.append(
                (f"requests in {still['seconds']:.0f} s, {what} (target: 0 beyond watches and the lease)", f"{asked}")
            )
    if changed := phases.get("change"):
        times = changed["milliseconds"]
        found.append(
            (
                f"a spec's change until it is applied: median, p99 of {times['samples']}",
                f"{times['p50']:.0f} ms, {times['p99']:.0f} ms",
            )
        )
    if spread := phases.get("spread"):
        found.append(
            (
                "a policy's change until every router has said so",
                ", ".join(f"{one:.1f} s" for one in spread["policy_seconds"]),
            )
        )
    if again := phases.get("restart"):
        found.append(
            (
                "a restart until every sandbox was looked at; writes",
                f"{again['looked_seconds']:.1f} s; {again['writes']}",
            )
        )
    if followed := phases.get("failover"):
        found.append(("the leader killed until the standby's first reconcile", f"{followed['first_seconds']:.1f} s"))
    if gone := phases.get("delete"):
        found.append(("every sandbox gone", f"{gone['seconds']:.0f} s"))
    return found


def markdown(results: Results) -> str:
    """Return the table, and under what it was measured."""
    machine = results["machine"]
    body = "\n".join(f"| {what} | {much} |" for what, much in rows(results))
    return (
        f"| {results['sandboxes']} sandboxes, each with a policy of its own | |\n|---|---|\n{body}\n\n"
        f"{machine['cpu']}, {machine['cores']} cores; load before: {results['load_before']:.1f}. Routers and kubelets are"
        f" stood in for (kwok, `benches/control/echo_farm.py`). {REFERENCE}\n"
    )


def svg(results: Results) -> str:
    """Return the picture of how many sandboxes were Ready when."""
    curve = results["phases"]["create"]["curve"]
    width, height, most = 640, 240, max(curve[-1], 1.0)
    points = " ".join(
        f"{40 + at / most * (width - 60):.1f},{height - 30 - (index + 1) / len(curve) * (height - 60):.1f}"
        for index, at in enumerate(curve)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="white"/>'
        f'<polyline fill="none" stroke="#2b6cb0" stroke-width="2" points="{points}"/>'
        f'<text x="40" y="{height - 10}">0 s</text><text x="{width - 60}" y="{height - 10}">{most:.0f} s</text>'
        f'<text x="40" y="20">sandboxes Ready: {len(curve)} at the end</text></svg>\n'
    )


def publish(results: Results, docs: Path) -> None:
    """Put the table into the page of benchmarks, in place of the one before."""
    page = docs / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    section = f"{BEGIN}\n{markdown(results)}{END}"
    if BEGIN in text:
        text = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: section, text, flags=re.DOTALL)
    else:
        text += f"\n## The controller with many sandboxes\n\nBy `make bench-control`; `benches/control/run.py --help`.\n\n{section}\n"
    page.write_text(text, encoding="utf-8")
