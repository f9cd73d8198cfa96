"""S7: a policy of 10 000 rules replaced under load: how soon it counts, and what the callers notice."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import time
from typing import Any, Self

from . import procs
from .harness import Harness, say
from .loads import LOADS, MODELS, PROBE_MODEL
from .mount import PolicyMount
from .subjects import SUBJECTS, Running, governed_policy

RULES = 10_000
# How long one reload may take before it counts as never.
PATIENCE_S = 10.0


def run(harness: Harness) -> dict[str, Any]:
    """Times to effect, failures, and p99 with and without reloads."""
    running = harness.start(SUBJECTS["kars"])
    try:
        mount = PolicyMount(running.run / "policy")
        mount.version = 1
        reloads = 3 if harness.quick else 8
        steady = harness.client(running, LOADS["json"].model, *LOADS["json"].words(2.0 if harness.quick else 4.0))
        client = background(harness, running)
        time.sleep(0.5)
        times = [reload(running, mount, permit=turn % 2 == 0) for turn in range(reloads)]
        report = finish(client)
    finally:
        harness.stop(running)
    taken = [took for took in times if took is not None]
    result = {
        "rules": RULES,
        "to_effect_ms": [None if took is None else round(took, 2) for took in times],
        "median_ms": round(statistics.median(taken), 2) if taken else None,
        "p99_steady_us": steady.get("call_us", {}).get("p99"),
        "p99_reload_us": report.get("call_us", {}).get("p99"),
        "calls": report.get("calls"),
        "failed": sum(report.get(name, 0) for name in ("refused", "broken", "unfinished")),
        "refusal": report.get("refusal"),
    }
    say(f"reload        kars         {result}")
    return result


def background(harness: Harness, running: Running) -> subprocess.Popen[str]:
    """The load the reloads happen under; it ends by itself."""
    words = LOADS["json"].words(4.0 if harness.quick else 8.0)
    with procs.on_core(harness.load_core):
        return subprocess.Popen(
            harness.client_command(running, LOADS["json"].model, *words), stdout=subprocess.PIPE, text=True
        )


def finish(client: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = client.communicate(timeout=60)
    return json.loads(out.splitlines()[-1]) if out else {}


def reload(running: Running, mount: PolicyMount, *, permit: bool) -> float | None:
    """Swaps in a policy that permits (or no longer permits) one model; milliseconds until that is so."""
    models = (*MODELS, PROBE_MODEL) if permit else MODELS
    mount.stage(governed_policy(models, RULES))
    time.sleep(0.2)
    began = time.perf_counter()
    mount.swap()
    with Probe(running.port, running.subject.path) as probe:
        while time.perf_counter() - began < PATIENCE_S:
            if probe.is_permitted() == permit:
                return (time.perf_counter() - began) * 1e3
            time.sleep(0.0005)
    return None


class Probe:
    """One connection that asks for the model in question."""

    def __init__(self, port: int, path: str) -> None:
        body = json.dumps({"model": PROBE_MODEL, "messages": [{"role": "user", "content": "Hello"}]})
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-test\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.request = (head + body).encode()
        self.port = port
        self.connection: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.connection:
            self.connection.close()

    def is_permitted(self) -> bool:
        """Asks once; the answers are small enough to arrive whole."""
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", self.port), 5)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.sendall(self.request)
        answer = self.connection.recv(65_536)
        if not answer or b"connection: close" in answer.lower():
            self.connection.close()
            self.connection = None
        return answer.startswith(b"HTTP/1.1 200")
