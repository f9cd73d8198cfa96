"""The rounds: every load through every subject, neighbours in time, and the books compared at the end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from . import books, procs
from .harness import Harness, faults, say
from .loads import LOADS, Load
from .subjects import SUBJECTS, Running


def run(harness: Harness, number: int, subjects: Sequence[str], scenarios: Sequence[str]) -> dict[str, Any]:
    """One round: by subject, what each load cost, memory, and whatever was wrong."""
    loads = [load for load in LOADS.values() if load.scenario in scenarios and seconds_of(harness, load)]
    started: dict[str, Running] = {}
    results: dict[str, Any] = {}
    try:
        for name in subjects:
            results[name] = {"loads": {}, "faults": []}
            try:
                started[name] = harness.start(SUBJECTS[name])
            except RuntimeError as error:
                results[name]["faults"].append(str(error))
                say(f"round {number}: {name} {error}")
                continue
            results[name]["cold_ms"] = round(started[name].cold_ms, 1)
            results[name]["served"] = {}
        for load in loads:
            run_load(harness, number, load, started, results)
        for name, running in started.items():
            results[name]["memory_kb"] = procs.memory_kb(running.pid)
            if name.startswith("kars"):
                results[name]["books"] = books.compare(running, results[name]["served"], harness.kars)
                results[name]["faults"] += results[name]["books"]["faults"]
    finally:
        for running in started.values():
            harness.stop(running)
    return results


def seconds_of(harness: Harness, load: Load) -> float:
    """How long a window of this load is; 0 when it is left out."""
    return load.quick_seconds if harness.quick else load.seconds


def run_load(harness: Harness, number: int, load: Load, started: dict[str, Running], results: dict[str, Any]) -> None:
    """One load through all subjects; who comes first changes from round to round."""
    order = [name for name, running in started.items() if load.for_slow or not running.subject.is_slow]
    # The direct one goes first: its body is what the others are compared with.
    order.sort(key=lambda name: name != "direct")
    others = order[1:] if order[:1] == ["direct"] else order
    random.Random(f"{number} {load.name}").shuffle(others)
    order = [*order[: len(order) - len(others)], *others]
    expected = None
    for name in order:
        running = started[name]
        before = harness.totals(running)
        report = harness.measure(running, load, seconds_of(harness, load))
        books.add(results[name]["served"], before, harness.totals(running))
        if name == "direct":
            expected = report.get("body_sha256")
        wrong = faults(report, expected if running.subject.is_transparent else None)
        results[name]["loads"][load.name] = report
        results[name]["faults"] += [f"{load.name}: {fault}" for fault in wrong]
        say(f"round {number} {load.name:13} {name:12} {summary(report, load)}{'  FAULT ' + wrong[0] if wrong else ''}")


def summary(report: dict[str, Any], load: Load) -> str:
    """A window in a line."""
    if "error" in report:
        return str(report["error"])
    unit = "call" if load.unit == "calls" else "event"
    latency = report["event_us"] if load.unit == "events" else report["call_us"]
    speed = f"{report['calls_per_s']:9.0f} calls/s" if load.unit == "calls" else f"{report['events_per_s']:9.0f} ev/s"
    cost = f"{report['cpu_us'] or 0:8.2f} µs/{unit:5} at {report['cpu_percent']:5.1f} %"
    return f"{speed} {cost}  p50 {latency['p50']:8.1f} p99 {latency['p99']:8.1f} µs {report['marks']}"
