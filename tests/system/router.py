"""A real `kars router` process on free ports, its log and its files."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.system import client

READY_SECONDS = 20.0


def free_ports(amount: int) -> list[int]:
    """Different ports that nothing listens on right now, below those that the system gives to outgoing connections."""
    chance = random.SystemRandom()
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < amount:
            port = chance.randrange(10_000, 32_000)
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("", port)))
                found.append(port)
        return found


class Router:
    """One router, started with nothing in its environment but what a test gives it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.port, self.metrics_port, self.proxy_port = free_ports(3)
        self.audit_folder = folder / "audit"
        self.log_path = folder / "router.log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "ROUTER_PORT": str(self.port),
            "ROUTER_METRICS_PORT": str(self.metrics_port),
            "FORWARD_PROXY_PORT": str(self.proxy_port),
            "SANDBOX_NAME": "test-sandbox",
            "KARS_AUDIT_DIR": str(self.audit_folder),
            "TOKEN_BUDGET_PERSIST_PATH": str(folder / "budget.json"),
            "SHUTDOWN_TIMEOUT_SECS": "5",
            "RUST_LOG": "debug",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True, under: Sequence[str] = ()) -> "Router":
        """Starts it; returns when it is ready. `under` is a command that becomes it, such as a shell with limits."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", "kars", "router"],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready():
            assert self.process is not None
            code = self.process.poll()
            assert code is None, f"the router ended with {code}:\n{self.log}"
            assert time.monotonic() < deadline, f"the router is not ready:\n{self.log}"
            time.sleep(0.01)

    def ready(self) -> bool:
        try:
            return client.get(self.port, "/readyz", timeout=2).status == 200
        except (OSError, EOFError):
            return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def terminate(self) -> None:
        """Asks it to stop (SIGTERM)."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float = 15.0) -> int:
        """Waits for its end; the exit code."""
        assert self.process is not None
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Ends it without warning (SIGKILL)."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def stop(self) -> int | None:
        """Stops it if it runs, gently at first."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.terminate()
            try:
                self.wait(8)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def metrics(self) -> str:
        """The Prometheus text."""
        found = client.get(self.metrics_port, "/metrics")
        assert found.status == 200
        return found.text

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 when there is none."""
        total = 0.0
        for line in self.metrics().splitlines():
            series, _, value = line.rpartition(" ")
            found, _, rest = series.partition("{")
            if found == name and all(f'{key}="{wanted}"' in rest for key, wanted in labels.items()):
                total += float(value)
        return total

    def policy_status(self) -> dict:
        """`/internal/policy-status`."""
        found = client.get(self.port, "/internal/policy-status")
        assert found.status == 200, found.body
        return found.json

    def entry(self, kind: str = "InferencePolicy") -> dict | None:
        """One row of the policy status."""
        rows = [row for row in self.policy_status()["entries"] if row["kind"] == kind]
        return rows[0] if rows else None

    def audit(self) -> list[dict]:
        """All audit records on disk, in the order of their files and lines."""
        found = []
        for path in sorted(self.audit_folder.glob("*.jsonl")):
            # The last line may be on its way.
            whole, _, _ = path.read_text().rpartition("\n")
            found += [json.loads(line) for line in whole.splitlines() if line]
        return found

    def wait_audit(self, amount: int, timeout: float = 5.0) -> list[dict]:
        """Waits until that many inference records are on disk; these records."""
        deadline = time.monotonic() + timeout
        while True:
            found = [record for record in self.audit() if str(record.get("action", "")).startswith("inference:")]
            if len(found) >= amount or time.monotonic() > deadline:
                return found
            time.sleep(0.02)


class Mount:
    """A policy directory as the kubelet makes it: files are links into `..data`, which is swapped in one rename."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, content: dict | bytes, name: str = "inference-policy.json") -> bytes:
        """Swaps in a new version; its bytes."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.made += 1
        version = self.folder / f"..2026_01_01_00_00_{self.made:02}.1"
        version.mkdir()
        (version / name).write_bytes(data)
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self.folder / "..data")
        visible = self.folder / name
        if not visible.is_symlink():
            visible.symlink_to(Path("..data") / name)
        return data

    def swap(self, files: Mapping[str, dict | bytes]) -> None:
        """Swaps in a version that has exactly these files."""
        self.made += 1
        version = self.folder / f"..2026_01_01_00_00_{self.made:02}.1"
        version.mkdir()
        for name, content in files.items():
            (version / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self.folder / "..data")
        for name in files:
            visible = self.folder / name
            if not visible.is_symlink():
                visible.symlink_to(Path("..data") / name)
        for visible in self.folder.iterdir():
            if not visible.name.startswith("..") and visible.name not in files:
                visible.unlink()

    def remove(self, name: str = "inference-policy.json") -> None:
        """Takes the file away, as when its ConfigMap loses the key."""
        (self.folder / name).unlink()
        self.made += 1
        version = self.folder / f"..2026_01_01_00_00_{self.made:02}.1"
        version.mkdir()
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self.folder / "..data")


def policy(**parts) -> dict:
    """An InferencePolicy document; parts are its top-level members."""
    return {"appliesTo": {"sandboxName": "test-sandbox"}, **parts}
