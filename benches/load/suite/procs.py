"""Processes as the suite sees them: pinned to a core, measured as a tree, ended by their own pid."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def settle_in() -> None:
    """Makes this process the head of its own session and raises it above the rest of the machine.

    The scheduler groups processes by session, and `nice` only counts inside a group: the group itself
    has to be raised, which takes privileges and is not essential.
    """
    with suppress(OSError):
        os.setsid()
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("-10", encoding="ascii")


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Whatever is started inside runs on `core`; it inherits the affinity of this process."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def spawn(
    command: Sequence[str], *, core: int, log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a process on a core; its output goes to `log`.

    It gets what every program needs of our environment and nothing that could be somebody's key.
    """
    basics = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    with on_core(core), log.open("wb") as out:
        return subprocess.Popen(
            command, env={**basics, **(env or {})}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process we started, and its descendants; kills what has not gone after five seconds."""
    descendants = tree(process.pid)[1:]
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in descendants:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def tree(pid: int) -> list[int]:
    """The process and its living descendants."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{task}/children").read_text(encoding="ascii")
                found.extend(int(child) for child in children.split())
    return found


def cpu_ns(pid: int) -> int:
    """CPU time of the whole tree in nanoseconds, with threads and children that have exited."""
    total = 0
    for member in tree(pid):
        with suppress(OSError):
            # A process's CPU clock by its pid: nanoseconds, exited threads included (clock_getcpuclockid(3)).
            total += time.clock_gettime_ns((~member << 3) | 2)
            fields = Path(f"/proc/{member}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            total += (int(fields[13]) + int(fields[14])) * TICK_NS
    return total


def memory_kb(pid: int) -> dict[str, int]:
    """RSS, PSS and USS (private pages) of the tree in KiB."""
    sums = {"rss": 0, "pss": 0, "uss": 0}
    for member in tree(pid):
        with suppress(OSError):
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text(encoding="ascii")
            sums["rss"] += field_kb(rollup, "Rss")
            sums["pss"] += field_kb(rollup, "Pss")
            sums["uss"] += field_kb(rollup, "Private_Clean") + field_kb(rollup, "Private_Dirty")
    return sums


def field_kb(rollup: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", rollup, re.MULTILINE)
    return int(found[1]) if found else 0


def move(pid: int, core: int) -> None:
    """Moves every thread of the tree to a core."""
    for member in tree(pid):
        with suppress(OSError):
            for task in os.listdir(f"/proc/{member}/task"):
                os.sched_setaffinity(int(task), {core})


def machine_busy_ns() -> int:
    """CPU time all processors spent on anything since boot; time stolen by the host does not count."""
    first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, irq, softirq = (int(word) for word in first[1:8])
    return (user + nice + system + irq + softirq) * TICK_NS


class Account:
    """What our own processes have used, so that the rest can be called foreign."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def own_ns(self) -> int:
        """CPU time of every registered tree, of this process and of its finished children."""
        total = sum(cpu_ns(pid) for pid in self.pids)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            total += int((usage.ru_utime + usage.ru_stime) * 1e9)
        return total


def describe_machine() -> dict[str, Any]:
    """What the figures were taken on, without naming the machine."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*:\s*(.*)", cpu)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"))
    return {
        "cpu": model[1] if model else "unknown",
        "cores": os.cpu_count(),
        "kernel": os.uname().release.split("-")[0],
        "memory_gb": round(int(memory[1]) / 2**20, 1) if memory else None,
    }
