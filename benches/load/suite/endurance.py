"""What a call costs after a thousand, a hundred thousand and a million of them, and the start after that."""

from __future__ import annotations

from typing import Any

from . import books
from .harness import Harness, say
from .loads import LOADS
from .subjects import SUBJECTS

AGES = (1_000, 100_000, 1_000_000)
QUICK_AGES = (1_000, 50_000)
WINDOW_CALLS = 20_000


def run(harness: Harness, name: str = "kars") -> dict[str, Any]:
    """CPU per call in a window at each age; then a restart on the same audit log, and its verification."""
    ages = QUICK_AGES if harness.quick else AGES
    running = harness.start(SUBJECTS[name])
    result: dict[str, Any] = {"first_start_ms": round(running.cold_ms, 1), "windows": {}}
    try:
        # One call showed that it was up.
        made = 1
        for age in ages:
            made += calls(harness, running, age - made)
            report = harness.window(running, lambda: count(harness, running, WINDOW_CALLS), "calls")
            made += report.get("calls", 0)
            result["windows"][age] = {
                "cpu_us": report.get("cpu_us"),
                "p50": report.get("call_us", {}).get("p50"),
                "p99": report.get("call_us", {}).get("p99"),
                "rss_kb": report.get("rss_kb"),
                "foreign_percent": report.get("foreign_percent"),
            }
            say(f"age {age:9} {name:12} {result['windows'][age]}")
    finally:
        harness.stop(running)
    result["calls"] = made
    return result | restart(harness, name, running.run, made)


def restart(harness: Harness, name: str, folder: Any, made: int) -> dict[str, Any]:
    """Starts again where `made` calls have been audited."""
    audit = folder / "audit"
    records = books.count_lines(audit) if audit.exists() else None
    size = sum(path.stat().st_size for path in audit.rglob("*") if path.is_file()) if audit.exists() else 0
    result: dict[str, Any] = {"audit_records": records, "audit_mb": round(size / 2**20, 1)}
    try:
        # The folder keeps its log; only the policy is mounted anew.
        (folder / "policy").rename(folder / "policy-before")
        again = harness.start(SUBJECTS[name], folder)
    except RuntimeError as error:
        return result | {"restart_error": str(error)}
    result["restart_ms"] = round(again.cold_ms, 1)
    harness.stop(again)
    if records is not None:
        result["verify_s"], result["verify"], result["verify_exit"] = books.verify(audit, harness.kars)
        result["is_complete"] = records == made
    say(f"age           {name:12} {result}")
    return result


def count(harness: Harness, running: Any, number: int) -> dict[str, Any]:
    return harness.client(running, LOADS["json"].model, "--connections", "32", "--count", str(number))


def calls(harness: Harness, running: Any, number: int) -> int:
    return int(count(harness, running, number).get("calls", 0)) if number > 0 else 0
