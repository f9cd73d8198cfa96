"""Whether the router counted what was really served: its metrics and its audit log against the mock's totals."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from .subjects import Running

# One call went through before the totals were first read: the one that showed the subject was up.
START_UP_CALLS = 1


def add(served: dict[str, int], before: dict[str, int], after: dict[str, int]) -> None:
    """Adds what the mock served between two readings."""
    for name, total in after.items():
        served[name] = served.get(name, 0) + total - before[name]


def compare(running: Running, served: dict[str, int], kars: str) -> dict[str, Any]:
    """Tokens and calls as the router counted them, and every difference in words."""
    metrics = scrape(running.metrics_port)
    counted = {
        "calls": sample_sum(metrics, "kars_inference_requests_total"),
        "input_tokens": sample_sum(metrics, "kars_tokens_total", 'direction="input"'),
        "output_tokens": sample_sum(metrics, "kars_tokens_total", 'direction="output"'),
    }
    # The start-up call is a JSON one, of 19 and 10 tokens.
    expected = {
        "calls": served.get("requests", 0) + START_UP_CALLS,
        "input_tokens": served.get("input_tokens", 0) + 19 * START_UP_CALLS,
        "output_tokens": served.get("output_tokens", 0) + 10 * START_UP_CALLS,
    }
    wrong = [
        f"{name}: {counted[name]} counted, {expected[name]} served"
        for name in expected
        if counted[name] != expected[name]
    ]
    result: dict[str, Any] = {"counted": counted, "expected": expected, "faults": wrong}
    if (running.run / "audit").exists():
        result |= audit(running, expected["calls"], kars)
        wrong += result["audit_faults"]
    return result


def audit(running: Running, calls: int, kars: str) -> dict[str, Any]:
    """Lines of the audit log, and what the router's own verifier says of them."""
    lines = await_lines(running.run / "audit", calls)
    wrong = [] if lines == calls else [f"{lines} audit records, {calls} calls"]
    took, verdict, code = verify(running.run / "audit", kars)
    if code:
        wrong.append(f"kars audit verify: {verdict}")
    return {"audit_records": lines, "verify_s": took, "verify": verdict, "audit_faults": wrong}


def verify(folder: Path, kars: str) -> tuple[float, str, int]:
    """Runs `kars audit verify` on a log: seconds, its last line, its exit code."""
    program = shlex.split(kars)[0]
    began = time.perf_counter()
    done = subprocess.run([program, "audit", "verify", str(folder)], capture_output=True, text=True, check=False)
    words = (done.stdout.strip() or done.stderr.strip()).splitlines() or [""]
    return round(time.perf_counter() - began, 2), words[-1][:300], done.returncode


def await_lines(folder: Path, calls: int) -> int:
    """Records on disk, once there are as many as calls or five seconds have passed."""
    deadline = time.monotonic() + 5
    while (lines := count_lines(folder)) < calls and time.monotonic() < deadline:
        time.sleep(0.2)
    return lines


def count_lines(folder: Path) -> int:
    """Records that tell of a call; a log also has others, such as policy changes."""
    total = 0
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as log:
            total += sum(b'"inference:' in line for line in log)
    return total


def scrape(port: int) -> str:
    """The router's metrics, in Prometheus' text format."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    except OSError as error:
        return f"# {error}"


def sample_sum(metrics: str, name: str, label: str = "") -> int:
    """The sum over all series of a counter that carry a label."""
    samples = re.findall(rf"^{name}(\{{[^}}]*\}})? ([0-9.eE+]+)$", metrics, re.MULTILINE)
    return int(sum(float(value) for labels, value in samples if label in labels))
