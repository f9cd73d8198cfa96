"""S6: cold start, and memory when idle, with a thousand streams and with clients that never read."""

from __future__ import annotations

import select
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import procs
from .harness import Harness, say
from .loads import HELD_MODEL, LOADS, STALLED_MODEL
from .subjects import ADMIN_TOKEN, SUBJECTS, Running


@dataclass(frozen=True)
class Held:
    """Streams kept open while memory is looked at."""

    streams: int
    model: str
    # The client's switch: `--hold` reads what comes, `--stall` reads nothing.
    mode: str
    settle_s: float


SLOW = Held(1_000, HELD_MODEL, "--hold", 2.0)
STALLED = Held(16, STALLED_MODEL, "--stall", 3.0)
# A control plane that was asked for is resident by then.
SETTLED_S = 3.0


def cold_starts(harness: Harness, subjects: Sequence[str]) -> dict[str, Any]:
    """Start to first proxied 200, interleaved; the slow ones fewer times."""
    times: dict[str, list[float]] = {}
    repeats = 3 if harness.quick else 9
    for turn in range(repeats):
        for name in subjects:
            if name == "direct" or (SUBJECTS[name].is_slow and turn >= (1 if harness.quick else 3)):
                continue
            try:
                running = harness.start(SUBJECTS[name])
            except RuntimeError as error:
                say(f"cold start {name}: {error}")
                continue
            times.setdefault(name, []).append(running.cold_ms)
            harness.stop(running)
    result = {
        name: {"median_ms": statistics.median(taken), "min_ms": min(taken), "max_ms": max(taken), "n": len(taken)}
        for name, taken in times.items()
    }
    for name, row in result.items():
        say(f"cold start    {name:12} {row['median_ms']:8.1f} ms [{row['min_ms']:.1f}-{row['max_ms']:.1f}]")
    return result


def footprints(harness: Harness, subjects: Sequence[str]) -> dict[str, Any]:
    """Memory of each subject in each state, in KiB."""
    result = {}
    for name in subjects:
        if name == "direct":
            continue
        try:
            result[name] = footprint(harness, name)
        except RuntimeError as error:
            result[name] = {"error": str(error)}
        say(f"memory        {name:12} {result[name]}")
    return result


def footprint(harness: Harness, name: str) -> dict[str, Any]:
    subject = SUBJECTS[name]
    running = harness.start(subject)
    try:
        time.sleep(0.3)
        result: dict[str, Any] = {"idle": procs.memory_kb(running.pid)}
        if name.startswith("kars"):
            bring_control_plane_in(running)
        time.sleep(SETTLED_S - 0.3)
        result["settled"] = procs.memory_kb(running.pid)
        harness.client(running, LOADS["json"].model, *LOADS["json"].words(1.0))
        result["loaded"] = procs.memory_kb(running.pid)
    finally:
        harness.stop(running)
    if not subject.is_slow:
        result["per_stream"] = growth(harness, name, SLOW)
        result["per_stalled"] = growth(harness, name, STALLED)
    return result


def bring_control_plane_in(running: Running) -> None:
    """The first call of a cold route makes kars import and start its control plane."""
    url = f"http://127.0.0.1:{running.port}/statusz"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def growth(harness: Harness, name: str, held: Held) -> float | None:
    """KiB a fresh subject grows by for each stream held; None when they did not all begin."""
    running = harness.start(SUBJECTS[name])
    try:
        time.sleep(SETTLED_S if name.startswith("kars") else 0.3)
        before = procs.memory_kb(running.pid)["rss"]
        words = ["--connections", str(held.streams), "--stream", held.mode, "--announce", "--seconds", "60"]
        command = harness.client_command(running, held.model, *words)
        peak = peak_kb(harness, running, command, held.settle_s)
        return None if peak is None else round((peak - before) / held.streams, 1)
    finally:
        harness.stop(running)


def peak_kb(harness: Harness, running: Running, command: list[str], settle_s: float) -> int | None:
    """The most a subject occupies in the time after a client has announced that it holds all it should."""
    with procs.on_core(harness.load_core):
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        if not select.select([client.stdout], [], [], 20)[0]:
            return None
        peak, deadline = 0, time.monotonic() + settle_s
        while time.monotonic() < deadline:
            peak = max(peak, procs.memory_kb(running.pid)["rss"])
            time.sleep(0.25)
        return peak if client.poll() is None else None
    finally:
        procs.stop(client)
