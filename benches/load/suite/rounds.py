"""The rounds: every load through every subject, neighbours in time, and the books compared at the end."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import books, procs
from .harness import Harness, faults, say
from .loads import LOADS, Load
from .subjects import SUBJECTS, Running, Subject


def run(harness: Harness, number: int, subjects: Sequence[str], scenarios: Sequence[str]) -> dict[str, Any]:
    """One round: by subject, what each load cost, memory, and whatever was wrong."""
    loads = [load for load in LOADS.values() if load.scenario in scenarios and seconds_of(harness, load)]
    results: dict[str, Any] = {}
    with all_started(harness, number, [SUBJECTS[name] for name in subjects], results) as started:
        for load in loads:
            run_load(harness, number, load, started, results)
        for name, running in started.items():
            results[name]["memory_kb"] = procs.memory_kb(running.pid)
            if name.startswith("kars"):
                results[name]["books"] = books.compare(running, results[name]["served"], harness.kars)
                results[name]["faults"] += results[name]["books"]["faults"]
    return results


@contextmanager
def all_started(
    harness: Harness, number: int, subjects: Sequence[Subject], results: dict[str, Any]
) -> Iterator[dict[str, Running]]:
    """All subjects side by side; each gets a row in the results, also the one that does not come up."""
    started: dict[str, Running] = {}
    try:
        for subject in subjects:
            row: dict[str, Any] = {"loads": {}, "faults": []}
            results[subject.name] = row
            try:
                started[subject.name] = harness.start(subject)
            except RuntimeError as error:
                row["faults"].append(str(error))
                say(f"round {number}: {subject.name} {error}")
                continue
            row["cold_ms"] = round(started[subject.name].cold_ms, 1)
            row["served"] = {}
        yield started
    finally:
        for running in started.values():
            harness.stop(running)


def in_turn(names: Sequence[str], seed: str) -> list[str]:
    """An order that the seed decides; the direct one goes first, since others are compared with it."""
    first, others = [name for name in names if name == "direct"], [name for name in names if name != "direct"]
    random.Random(seed).shuffle(others)
    return [*first, *others]


def seconds_of(harness: Harness, load: Load) -> float:
    """How long a window of this load is; 0 when it is left out."""
    return load.quick_seconds if harness.quick else load.seconds


def run_load(harness: Harness, number: int, load: Load, started: dict[str, Running], results: dict[str, Any]) -> None:
    """One load through all subjects; who comes first changes from round to round."""
    fit = [name for name, running in started.items() if load.for_slow or not running.subject.is_slow]
    expected = None
    for name in in_turn(fit, f"{number} {load.name}"):
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
