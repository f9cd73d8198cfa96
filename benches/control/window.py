"""One stretch of time: what every process used in it, and what the controller asked of the API server."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "load")]

from suite import procs  # noqa: E402

from benches.control.world import Metrics, World  # noqa: E402
from tests.cluster.installation import Controller  # noqa: E402

STATUS = re.compile(r"^(VmHWM|VmRSS):\s+(\d+) kB$", re.MULTILINE)
FLOW = "apiserver_flowcontrol_dispatched_requests_total"


def memory_mb(pid: int) -> dict[str, float]:
    """Peak and present RSS of one process, and what of it is nobody else's, in MB (10^6 bytes)."""
    found = {name: int(value) for name, value in STATUS.findall(Path(f"/proc/{pid}/status").read_text())}
    return {
        "peak_mb": round(found["VmHWM"] * 1024 / 1e6, 1),
        "rss_mb": round(found["VmRSS"] * 1024 / 1e6, 1),
        "own_mb": round(procs.memory_kb(pid)["uss"] * 1024 / 1e6, 1),
    }


class Window:
    """`begin` it, do something, `end` it."""

    def __init__(self, world: World, controller: Controller) -> None:
        self.world = world
        self.controller = controller
        plane = world.plane
        self.processes = {
            "controller": controller.process,
            "api_server": plane.server,
            "etcd": plane.etcd,
            "manager": plane.manager,
            "kwok": plane.kwok,
            "farm": world.farm,
        }

    async def begin(self) -> Window:
        """Note where everything stands."""
        self.before = await self.world.scrape(self.controller)
        self.server_before = await self.world.scrape_server()
        self.cpu = self.used()
        self.busy = procs.machine_busy_ns()
        self.began = time.monotonic()
        return self

    def used(self) -> dict[str, int]:
        """CPU of every process so far, in nanoseconds; of the driver, too."""
        found = {name: procs.cpu_ns(one.pid) for name, one in self.processes.items() if one is not None}
        return found | {"driver": time.process_time_ns()}

    async def end(self, *, seconds: float | None = None) -> dict[str, Any]:
        """What happened since; `seconds` where the time that counts ended earlier."""
        wall = time.monotonic() - self.began
        cpu = {name: (value - self.cpu.get(name, 0)) / 1e9 for name, value in self.used().items()}
        busy = (procs.machine_busy_ns() - self.busy) / 1e9
        after = await self.world.scrape(self.controller)
        server = await self.world.scrape_server()
        return {
            "seconds": round(wall if seconds is None else seconds, 2),
            "window_seconds": round(wall, 2),
            "cpu_seconds": {name: round(value, 2) for name, value in cpu.items()},
            "foreign_cores": round(max(0.0, busy - sum(cpu.values())) / wall, 2),
            "load": os.getloadavg()[0],
            "memory": memory_mb(self.controller.process.pid),
            "requests": told(after.requests() - self.before.requests()),
            "by_server": int(by_server(server) - by_server(self.server_before)),
            "reconciles": told(reconciles(after) - reconciles(self.before)),
            "status_writes": told(statuses(server) - statuses(self.server_before)),
        }


def reconciles(metrics: Metrics) -> Counter[tuple[str, ...]]:
    """Reconciles by kind and outcome."""
    return metrics.table("kars_controller_reconcile_total", "crd_kind", "outcome")


def statuses(metrics: Metrics) -> Counter[tuple[str, ...]]:
    """Writes of statuses of our kinds, as the API server counts them; nobody but the controller writes any."""
    return metrics.table("apiserver_request_total", "verb", "resource", group="kars.azure.com", subresource="status")


def by_server(metrics: Metrics) -> float:
    """How many requests of the controller's account the API server began to serve."""
    return metrics.sum(FLOW, flow_schema="bench-controller")


def told(table: Counter[tuple[str, ...]]) -> dict[str, int]:
    """A table as JSON has it, the largest first."""
    return {" ".join(key): count for key, count in table.most_common() if count}


def beyond(requests: dict[str, int]) -> dict[str, int]:
    """Requests but for watches and the lease."""
    return {name: count for name, count in requests.items() if not name.startswith("WATCH") and "leases" not in name}


def writes(requests: dict[str, int]) -> int:
    """How many requests changed something, but for the lease and events."""
    found = beyond(requests)
    return sum(count for name, count in found.items() if not name.startswith("GET") and not name.endswith("events"))
