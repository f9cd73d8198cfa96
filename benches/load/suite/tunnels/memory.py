"""Memory of each subject, idle and with a thousand idle tunnels, and its start to the first byte through one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from suite import procs
from suite.harness import Harness, say
from suite.memory import SETTLED_S, peak_kb

from .loads import IDLE_TUNNELS, client_command
from .subjects import TUNNELS

SETTLE_S = 1.0


def footprints(harness: Harness, subjects: Sequence[str]) -> dict[str, Any]:
    """Memory of each subject in each state, in KiB."""
    result: dict[str, Any] = {}
    with harness.served_by(TUNNELS["direct"]):
        for name in subjects:
            if name == "direct":
                continue
            try:
                result[name] = footprint(harness, name)
            except RuntimeError as error:
                result[name] = {"error": str(error)}
            say(f"tunnel memory {name:14} {result[name]}")
    return result


def footprint(harness: Harness, name: str) -> dict[str, Any]:
    """One subject, fresh."""
    running = harness.start(TUNNELS[name])
    try:
        time.sleep(SETTLED_S if name.startswith("kars") else 0.3)
        idle = procs.memory_kb(running.pid)
        command = client_command(harness.binary, running, "idle", IDLE_TUNNELS, 60)
        held = peak_kb(harness, running, command, SETTLE_S)
        growth = None if held is None else round((held - idle["rss"]) / IDLE_TUNNELS, 2)
        return {"idle": idle, "held_rss": held, "per_tunnel": growth, "cold_ms": round(running.cold_ms, 1)}
    finally:
        harness.stop(running)
