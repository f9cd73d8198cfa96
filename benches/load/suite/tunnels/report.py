"""S5 as people read it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from suite import targets
from suite.tables import short, table

from .loads import IDLE_TUNNELS, LOADS, Load
from .subjects import TUNNELS

Results = dict[str, Any]
SUMMARY = ("connects", "pingpong_32", "bulk_1", "bulk_8")


def sections(results: Results) -> list[str]:
    """A table for every load, and one of memory."""
    found = []
    for load in LOADS.values():
        rows = [row for name in TUNNELS if (row := load_row(results, load, name))]
        if rows:
            speed = "GB/s" if load.unit == "mb" else f"{load.noun}s/s"
            head = ["", speed, f"CPU µs/{load.noun}", "÷ floor", "÷ Envoy", f"{speed} ÷ Envoy"]
            head += [] if load.unit == "mb" else ["p50 / p99 µs"]
            found += [f"## S5: {load.about}", table([*head, "set-up p50 / p99 µs", "CPU %", "marks"], rows)]
    if found:
        found.append(
            "HAProxy knows no CONNECT: its tunnels lead to one place, and are asked for by connecting. "
            "† as above; a speed ÷ Envoy is only taken where Envoy's own was not the harness's."
        )
    if rows := memory_rows(results):
        head = ["", "idle RSS (USS) MiB", f"RSS with {IDLE_TUNNELS:,} idle tunnels MiB", "KiB per tunnel", "start ms"]
        found += ["## S5: memory", table(head, rows)]
    return found


def load_row(results: Results, load: Load, name: str) -> list[str] | None:
    rounds = results.get("tunnel_rounds", [])
    reports = [report for one in rounds if name in one and (report := one[name]["loads"].get(load.name))]
    if not reports:
        return None
    good = [report for report in reports if "error" not in report and report.get(load.unit)]
    if not good:
        return [name, "failed"] + [""] * (7 if load.unit == "mb" else 8)

    def middle(take: Callable[[Results], float]) -> float:
        return statistics.median(take(report) for report in good)

    speed = middle(lambda r: r[load.speed])
    row = [name, f"{speed:.2f}" if load.unit == "mb" else f"{speed:,.0f}", f"{middle(lambda r: r['cpu_us'] or 0):.2f}"]
    row += [ratio(results, targets.ratio(load.name, name, other)) for other in ("floor", "envoy")]
    row.append(ratio(results, targets.speed(load.name, name, "envoy", load.speed)))
    for which in ("setup_us",) if load.unit == "mb" else ("op_us", "setup_us"):
        row.append(" / ".join(f"{middle(lambda r, q=q, w=which: r[w][q]):,.0f}" for q in ("p50", "p99")))
    marks = "".join(sorted(set("".join(report["marks"] for report in good))))
    return [*row, f"{middle(lambda r: r['cpu_percent']):.0f}", marks.replace("*", "\\*")]


def ratio(results: Results, take: Callable[[Results], float | None]) -> str:
    """The median over the rounds of what is taken from each."""
    taken = targets.per_round(results, take, targets.TUNNELS)
    return short(statistics.median(taken)) if taken else ""


def memory_rows(results: Results) -> list[list[str]]:
    """Idle, with tunnels, per tunnel, and the start."""
    rows = []
    for name, row in results.get("tunnel_footprints", {}).items():
        if "idle" not in row:
            continue
        idle = f"{row['idle']['rss'] / 1024:.1f} ({row['idle']['uss'] / 1024:.1f})"
        held = "" if row["held_rss"] is None else f"{row['held_rss'] / 1024:.1f}"
        growth = "" if row["per_tunnel"] is None else f"{row['per_tunnel']:.1f}"
        rows.append([name, idle, held, growth, f"{row['cold_ms']:.1f}"])
    return rows


def summary(results: Results) -> str:
    """Subjects against each other in one table; empty when S5 did not run."""
    rows = []
    for name in TUNNELS:
        ratios = [ratio(results, targets.ratio(load, name, "floor")) for load in SUMMARY]
        if not any(ratios):
            continue
        speeds = [
            targets.per_round(
                results, lambda one, load=load: targets.figure(one, name, load, "gb_per_s"), targets.TUNNELS
            )
            for load in ("bulk_1", "bulk_8")
        ]
        memory = results.get("tunnel_footprints", {}).get(name, {})
        rest = [f"{memory['idle']['rss'] / 1024:.1f}" if "idle" in memory else ""]
        rest.append(f"{memory['per_tunnel']:.1f}" if memory.get("per_tunnel") is not None else "")
        rows.append([name, *ratios, " / ".join(f"{statistics.median(taken):.2f}" for taken in speeds if taken), *rest])
    if not rows:
        return ""
    head = ["Tunnels, CPU ÷ floor", *(LOADS[load].about for load in SUMMARY)]
    return table([*head, "GB/s, 1 / 8 tunnels", "idle RSS MiB", "KiB per idle tunnel"], rows)
