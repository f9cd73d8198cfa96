"""Mock, client and clock: runs one load through one subject and says what it cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from . import procs
from .loads import MODELS
from .subjects import SUBJECTS, Running, Site, Subject, free_port, start

# Share of a core that strangers may use in a window before it is repeated, and then marked.
FOREIGN_PERCENT = 10.0
# Above this the harness itself may be the bottleneck.
SATURATED_PERCENT = 95.0


def say(text: str) -> None:
    """A line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


class Measurable(Protocol):
    """A load of any kind."""

    @property
    def unit(self) -> str:
        """What CPU time is divided by, as the client's report names it."""

    @property
    def one_core(self) -> bool:
        """Whether subject and client share a core."""

    def command(self, binary: str, running: Running, seconds: float) -> list[str]:
        """The command line of a client that puts it on a subject."""


@dataclass
class Harness:
    """Everything the scenarios share."""

    binary: str
    kars: str
    folder: Path
    quick: bool
    subject_core: int = 0
    load_core: int = 1
    account: procs.Account = field(default_factory=procs.Account)
    mock: Running | None = None
    runs: int = 0

    def open(self) -> None:
        """Settles on the cores and starts the mock all subjects share."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("two cores are needed: one for the subject, one for the load")
        self.subject_core, self.load_core = cores[0], cores[1]
        procs.settle_in()
        os.sched_setaffinity(0, {self.load_core})
        site = self.site("mock")
        self.mock = start(SUBJECTS["direct"], site, self.load_core)
        self.account.pids.add(self.mock.pid)

    def close(self) -> None:
        """Ends the mock."""
        if self.mock:
            self.stop(self.mock)

    @contextmanager
    def served_by(self, subject: Subject) -> Iterator[None]:
        """Another server stands behind the subjects that are started inside."""
        usual = self.mock
        own = start(subject, self.site(subject.name), self.load_core)
        self.account.pids.add(own.pid)
        self.mock = own
        try:
            yield
        finally:
            self.mock = usual
            self.stop(own)

    def site(self, name: str, run: Path | None = None) -> Site:
        """Fresh ports and, unless one is given, a fresh folder."""
        self.runs += 1
        folder = run or self.folder / f"{self.runs:03d}-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        upstream = self.mock.port if self.mock else 0
        return Site(free_port(), upstream, folder, self.binary, self.kars, MODELS)

    def start(self, subject: Subject, run: Path | None = None) -> Running:
        """Starts a subject on its core."""
        running = start(subject, self.site(subject.name, run), self.subject_core)
        self.account.pids.add(running.pid)
        return running

    def stop(self, running: Running) -> None:
        """Ends a subject."""
        self.account.pids.discard(running.pid)
        running.stop()

    def client(self, running: Running, model: str, *words: str) -> dict[str, Any]:
        """Runs the client to its end; its report, or `error`."""
        return self.run_client(self.client_command(running, model, *words))

    def run_client(self, command: list[str]) -> dict[str, Any]:
        """Runs a client's command line to its end; its report, or `error`."""
        with procs.on_core(self.load_core):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            return json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            return {"error": done.stderr.strip()[-300:] or "no report"}

    def client_command(self, running: Running, model: str, *words: str) -> list[str]:
        """The client's command line for a subject."""
        return running.client_command(self.binary, model, *words)

    def totals(self, running: Running) -> dict[str, int]:
        """What the mock behind a subject has served so far."""
        mock = running if running.subject.name == "direct" else self.mock
        assert mock is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{mock.port}/totals", timeout=10) as answer:
            return json.load(answer)

    def measure(self, running: Running, load: Measurable, seconds: float) -> dict[str, Any]:
        """One window of a load, repeated once when strangers used the machine."""
        run = partial(self.run_client, load.command(self.binary, running, seconds))
        if load.one_core:
            procs.move(running.pid, self.load_core)
        try:
            warm = self.run_client(load.command(self.binary, running, 0.3 if self.quick else 0.7))
            if "error" in warm:
                return warm
            windows: list[dict[str, Any]] = []
            while not windows or (len(windows) < 2 and foreign(windows[0]) > FOREIGN_PERCENT and not self.quick):
                windows.append(self.window(running, run, load.unit))
            return min(windows, key=foreign)
        finally:
            if load.one_core:
                procs.move(running.pid, self.subject_core)

    def window(self, running: Running, run: Callable[[], dict[str, Any]], unit: str) -> dict[str, Any]:
        """Runs a client and adds what it cost: CPU of the subject, of the harness, of strangers."""
        mock = self.mock
        assert mock is not None
        began = time.perf_counter_ns()
        busy, own = procs.machine_busy_ns(), self.account.own_ns()
        cpu, load_cpu = procs.cpu_ns(running.pid), self.load_ns(running)
        report = run()
        cpu, load_cpu = procs.cpu_ns(running.pid) - cpu, self.load_ns(running) - load_cpu
        others = (procs.machine_busy_ns() - busy) - (self.account.own_ns() - own)
        elapsed = time.perf_counter_ns() - began
        units = report.get(unit) or 0
        report["cpu_us"] = round(cpu / 1e3 / units, 3) if units else None
        report["cpu_percent"] = round(100 * cpu / elapsed, 1)
        report["load_percent"] = round(100 * load_cpu / elapsed, 1)
        report["foreign_percent"] = round(max(0.0, 100 * others / elapsed), 1)
        report["rss_kb"] = procs.memory_kb(running.pid)["rss"]
        saturated = report["load_percent"] > SATURATED_PERCENT > report["cpu_percent"]
        report["marks"] = ("†" if saturated else "") + ("*" if report["foreign_percent"] > FOREIGN_PERCENT else "")
        return report

    def load_ns(self, running: Running) -> int:
        """CPU of whatever shares the load's core: client, driver and (unless it is the subject) the mock."""
        own = self.account.own_ns() - sum(procs.cpu_ns(pid) for pid in self.account.pids)
        mock = self.mock
        shared = mock is not None and running.subject.name != "direct"
        return own + (procs.cpu_ns(mock.pid) if shared and mock else 0)


def foreign(window: dict[str, Any]) -> float:
    """CPU of strangers in a window, in percent of a core."""
    return float(window.get("foreign_percent", 0))


def faults(report: dict[str, Any], expected_hash: str | None) -> list[str]:
    """What was wrong with a window, in words; a fast wrong answer is a failure."""
    if "error" in report:
        return [report["error"]]
    counted = ("refused", "broken", "unfinished", "disordered", "incomplete")
    found = [f"{report[name]} {name}" for name in counted if report[name]]
    if report["refused"]:
        found.append(f"{report['refusals']} {report['refusal'][:160]}")
    if report["calls"] == 0:
        found.append("no call completed")
    elif expected_hash is not None:
        if report["differing"]:
            found.append(f"{report['differing']} bodies unlike the first")
        if report["body_sha256"] != expected_hash:
            found.append("body unlike the direct one")
    return found
