"""Whether the router counted what really went through: its metrics and its audit log against the far end's totals."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from suite.books import sample_sum, scrape, verify
from suite.subjects import Running

# One tunnel was opened before the totals were first read: the one that showed the subject was up. A byte each way.
START_UP = {"tunnels": 1, "received": 1, "sent": 1}
# How long a tunnel that has ended may take to reach a book.
PATIENCE_S = 5.0


def compare(running: Running, served: dict[str, int], kars: str) -> dict[str, Any]:
    """Tunnels and bytes as the router counted them, and every difference in words.

    `received` is what the far end received: what the client sent.
    """
    expected = {name: served.get(name, 0) + START_UP[name] for name in START_UP}
    counted = settled(lambda: by_metrics(running), expected)
    result: dict[str, Any] = {
        "expected": expected,
        "metrics": counted,
        "faults": differences("metrics", counted, expected),
    }
    if (running.run / "audit").exists():
        recorded = settled(lambda: by_audit(running.run / "audit"), expected)
        took, verdict, code = verify(running.run / "audit", kars)
        result |= {"audit": recorded, "verify_s": took, "verify": verdict}
        result["faults"] += differences("audit", recorded, expected)
        result["faults"] += [f"kars audit verify: {verdict}"] if code else []
    return result


def settled(take: Callable[[], dict[str, int]], expected: dict[str, int]) -> dict[str, int]:
    """A reading, once it is what is expected or the patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := take()) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def differences(book: str, counted: dict[str, int], expected: dict[str, int]) -> list[str]:
    """Where a book does not agree."""
    return [
        f"{name} by {book}: {counted[name]} counted, {expected[name]} served"
        for name in expected
        if counted[name] != expected[name]
    ]


def by_metrics(running: Running) -> dict[str, int]:
    """What the counters say."""
    metrics = scrape(running.metrics_port)
    return {
        "tunnels": sample_sum(metrics, "kars_egress_tunnels_total"),
        "received": sample_sum(metrics, "kars_egress_bytes_total", 'direction="sent"'),
        "sent": sample_sum(metrics, "kars_egress_bytes_total", 'direction="received"'),
    }


def by_audit(folder: Path) -> dict[str, int]:
    """What the records of allowed tunnels say."""
    found = dict.fromkeys(START_UP, 0)
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as log:
            for line in log:
                if b'"action":"egress:connect:' not in line or b'"decision":"allow"' not in line:
                    continue
                call = json.loads(line)["call"]
                found["tunnels"] += 1
                found["received"] += call.get("sent_bytes", 0)
                found["sent"] += call.get("received_bytes", 0)
    return found
