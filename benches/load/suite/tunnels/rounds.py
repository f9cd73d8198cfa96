"""The rounds of S5: every load through every subject, neighbours in time, and the books compared at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from suite import books as calls
from suite import procs
from suite.harness import Harness, say
from suite.rounds import all_started, in_turn
from suite.subjects import Running

from . import books
from .loads import LOADS, Load
from .subjects import TUNNELS


def run(harness: Harness, number: int, subjects: Sequence[str]) -> dict[str, Any]:
    """One round: by subject, what each load cost, memory, and whatever was wrong."""
    results: dict[str, Any] = {}
    with (
        harness.served_by(TUNNELS["direct"]),
        all_started(harness, number, [TUNNELS[name] for name in subjects], results) as started,
    ):
        for load in LOADS.values():
            for name in in_turn(list(started), f"{number} {load.name}"):
                row = results[name]
                run_load(harness, number, load, started[name], row)
        for name, running in started.items():
            results[name]["memory_kb"] = procs.memory_kb(running.pid)
            if name.startswith("kars"):
                results[name]["books"] = books.compare(running, results[name]["served"], harness.kars)
                results[name]["faults"] += results[name]["books"]["faults"]
    return results


def run_load(harness: Harness, number: int, load: Load, running: Running, row: dict[str, Any]) -> None:
    """One load through one subject, into its row."""
    before = harness.totals(running)
    report = harness.measure(running, load, load.quick_seconds if harness.quick else load.seconds)
    calls.add(row["served"], before, harness.totals(running))
    wrong = faults(report)
    row["loads"][load.name] = report
    row["faults"] += [f"{load.name}: {fault}" for fault in wrong]
    fault = f"  FAULT {wrong[0]}" if wrong else ""
    say(f"round {number} {load.name:11} {running.subject.name:14} {summary(report, load)}{fault}")


def faults(report: dict[str, Any]) -> list[str]:
    """What was wrong with a window, in words; a fast wrong tunnel is a failure."""
    if "error" in report:
        return [report["error"]]
    counted = ("refused", "broken", "unfinished", "differing", "incomplete")
    found = [f"{report[name]} {name}" for name in counted if report[name]]
    if report["refused"]:
        found.append(f"{report['refusals']} {report['refusal'][:160]}")
    if not report["bytes"]:
        found.append("nothing came through")
    return found


def summary(report: dict[str, Any], load: Load) -> str:
    """A window in a line."""
    if "error" in report:
        return str(report["error"])
    speed = f"{report[load.speed]:8.2f} GB/s " if load.unit == "mb" else f"{report[load.speed]:8.0f} ops/s"
    cost = f"{report['cpu_us'] or 0:8.2f} µs/{load.noun:10} at {report['cpu_percent']:5.1f} %"
    latency = report["setup_us"] if load.unit == "mb" else report["op_us"]
    return f"{speed} {cost}  p50 {latency['p50']:8.1f} p99 {latency['p99']:8.1f} µs {report['marks']}"
