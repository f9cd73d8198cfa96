"""`kars demo`: a demo model server, a governed router in front of it, and every call on the screen."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from kars import settings
from kars.errors import UnavailableError
from kars.local import follow, ports

# A bare start takes some tens of milliseconds; a loaded machine or a cold disk takes seconds.
READY_SECONDS = 20.0
# The router drains first; what is left after this is ended.
STOP_SECONDS = 10.0
# How often the screen looks for new audit records.
LOOK_SECONDS = 0.1

# Limits that a first call does not notice and a second experiment runs into.
POLICY = {
    "appliesTo": {"sandboxName": "demo"},
    "tokenBudget": {"perRequestTokens": 4096, "dailyTokens": 1_000_000},
    "displayName": "demo",
}


def allowlist(model_port: int) -> dict[str, object]:
    """Make the demo's way out: the model server, whose address no rule but an explicit one reaches, and one website."""
    return {
        "schemaVersion": 2,
        "endpoints": [
            {"host": "127.0.0.1", "port": model_port, "addresses": ["127.0.0.1/32"]},
            {"host": "docs.python.org", "port": 443},
        ],
    }


class Tour:
    """The two processes and their state, in a directory of its own that goes with them."""

    def __init__(self, *, port: int, egress_port: int, model_port: int, metrics_port: int, state: Path | None) -> None:
        self.port = port
        self.egress_port = egress_port
        self.model_port = model_port
        self.metrics_port = metrics_port
        self.keep = state is not None
        self.state = state or Path(tempfile.mkdtemp(prefix="kars-demo-"))
        self.token = secrets.token_hex(16)
        # Masked wherever an answer echoes it, so it must not be a word of the language.
        self.key = f"sk-demo-{secrets.token_hex(16)}"
        self.running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start nothing yet; leaving the block ends whatever was started."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End the processes, the router first so that it drains, and remove the state."""
        for process in reversed(self.running):
            end(process)
        if not self.keep:
            shutil.rmtree(self.state, ignore_errors=True)

    @property
    def audit(self) -> Path:
        """The audit log's directory."""
        return self.state / "audit"

    @property
    def policy(self) -> Path:
        """The inference policy."""
        return self.state / "policy" / "inference-policy.json"

    @property
    def allowlist(self) -> Path:
        """The egress allowlist."""
        return self.state / "egress" / "allowlist.json"

    @property
    def log(self) -> Path:
        """Where the processes' own words go, so that the screen shows calls only."""
        return self.state / "processes.log"

    def url(self, path: str = "") -> str:
        """Return an address of the router."""
        return f"http://127.0.0.1:{self.port}{path}"

    def proxy(self) -> str:
        """Return the address of the egress proxy."""
        return f"http://127.0.0.1:{self.egress_port}"

    def start(self) -> None:
        """Start the model server, then the router, and wait until each answers."""
        for directory in (self.audit, self.policy.parent, self.allowlist.parent, self.state / "approvals"):
            directory.mkdir(parents=True, exist_ok=True)
        self.policy.write_text(json.dumps(POLICY, indent=2) + "\n")
        self.allowlist.write_text(json.dumps(allowlist(self.model_port), indent=2) + "\n")
        model = self.spawn([sys.executable, "-m", "kars.local.demo", "--port", str(self.model_port)], {})
        self.await_true(lambda: accepts(self.model_port), model, "the demo model server")
        router = self.spawn([sys.executable, "-m", "kars", "router"], self.environment())
        self.await_true(lambda: answers(self.url("/readyz")), router, "the router")

    def environment(self) -> dict[str, str]:
        """Make the router's settings; the model server takes any key."""
        model = f"http://127.0.0.1:{self.model_port}"
        return {
            "ROUTER_BIND": "127.0.0.1",
            "ROUTER_PORT": str(self.port),
            "ROUTER_METRICS_PORT": str(self.metrics_port),
            "SANDBOX_NAME": "demo",
            "ADMIN_TOKEN": self.token,
            "OPENAI_BASE_URL": f"{model}/v1",
            "OPENAI_API_KEY": self.key,
            "ANTHROPIC_BASE_URL": model,
            "ANTHROPIC_API_KEY": self.key,
            "AZURE_OPENAI_ENDPOINT": "",
            "FOUNDRY_ENDPOINT": "",
            "INFERENCE_POLICY_DIR": str(self.policy.parent),
            "FORWARD_PROXY_BIND": "127.0.0.1",
            "FORWARD_PROXY_PORT": str(self.egress_port),
            "EGRESS_MODE": "strict",
            "EGRESS_ALLOWLIST_DIR": str(self.allowlist.parent),
            "EGRESS_APPROVAL_DIR": str(self.state / "approvals"),
            "EGRESS_LEARNED_PATH": str(self.state / "egress-learned.jsonl"),
            "BLOCKLIST_FEEDS": "off",
            "KARS_AUDIT_DIR": str(self.audit),
            "TOKEN_BUDGET_PERSIST_PATH": str(self.state / "budgets.json"),
        }

    def spawn(self, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start one process in a group of its own, so that Ctrl-C reaches us first and each ends in order."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                env=settings.child(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def await_true(self, ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
        """Wait until a process is ready; one that ends or stays silent is an error with its last words."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if ready():
                return
            time.sleep(0.02)
        state = "did not answer" if process.poll() is None else f"ended with status {process.returncode}"
        words = self.log.read_text(errors="replace").strip().splitlines()[-5:]
        raise UnavailableError(f"{what} {state}", hint="its last words:\n  " + "\n  ".join(words or ["(none)"]))

    def watch(self, show: Callable[[str], None], *, colour: bool) -> None:
        """Show every call until interrupted; a process of ours that ends meanwhile is an error."""
        tail = follow.Tail(self.audit)
        try:
            while True:
                for record in tail.records():
                    show(follow.line(record, colour=colour))
                for process in self.running:
                    if process.poll() is not None:
                        raise UnavailableError(
                            f"a process ended with status {process.returncode}", hint=f"see {self.log}"
                        )
                time.sleep(LOOK_SECONDS)
        finally:
            tail.close()


def accepts(port: int) -> bool:
    """Whether somebody listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    """Whether a GET gets a 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, then end it."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def choose(preferred: int | None, egress: int | None = None) -> tuple[int, int, int, int]:
    """Choose the router's, the egress proxy's, the metrics' and the model server's port, free and different."""
    port = ports.free(preferred or 8443)
    out = ports.free(egress or 8444, taken=frozenset({port}))
    metrics = ports.free(9090, taken=frozenset({port, out}))
    model = ports.free(8460, taken=frozenset({port, out, metrics}))
    return port, out, metrics, model
