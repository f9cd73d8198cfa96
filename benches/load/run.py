#!/usr/bin/env python3
"""Compares the router with the floor, with plain hyper and with the proxies people use, on this machine.

  make bench                                             what CI runs
  python3 benches/load/run.py --quick                    about three minutes
  python3 benches/load/run.py --rounds 5                 for published tables
  python3 benches/load/run.py --only S1,S3 --subjects direct,floor,kars,envoy
  python3 benches/load/run.py --kars '/opt/kars/bin/kars router'

Needs two cores, `cargo build --release -p kars_load`, and for the peers `benches/load/peers.py`; peers that
are not installed are skipped, and the report says so. Results: benches/load/out/results.{json,md}, plot.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
sys.path.insert(0, str(HERE))

from suite import budget, endurance, memory, plot, procs, reload, report, rounds, targets  # noqa: E402
from suite.harness import Harness, say  # noqa: E402
from suite.subjects import SUBJECTS  # noqa: E402
from suite.tunnels import memory as tunnel_memory  # noqa: E402
from suite.tunnels import rounds as tunnel_rounds  # noqa: E402
from suite.tunnels.subjects import TUNNELS  # noqa: E402

SCENARIOS = {
    "S1": "JSON calls",
    "S2": "paced streams",
    "S3": "bursts and single events",
    "S4": "an upstream with Nagle's algorithm",
    "S5": "tunnels by CONNECT",
    "S6": "memory and cold start",
    "S7": "policy reload under load",
    "budget": "a budget spent from 32 connections",
    "age": "cost of a call after up to a million of them",
}
# What stands between these in the documentation is written by `--publish`.
BEGIN = "<!-- results: written by run.py --publish -->"
END = "<!-- end of results -->"
# A quick run leaves out what costs most to start.
NOT_QUICK = {"litellm", "nginx", "haproxy", "haproxy-splice", "squid", "tinyproxy"}
# Some stand in both tables: the same program in another role.
ALL = SUBJECTS | {name: subject for name, subject in TUNNELS.items() if name not in SUBJECTS}


def options() -> argparse.Namespace:
    """The command line."""
    scenarios = ", ".join(f"{name} {about}" for name, about in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"Scenarios: {scenarios}."
    )
    parser.add_argument("--quick", action="store_true", help="one round of short windows, fewer subjects")
    parser.add_argument("--rounds", type=int, help="rounds of the loads (default 3, quick 1)")
    parser.add_argument("--only", default=",".join(SCENARIOS), help="scenarios, separated by commas")
    parser.add_argument("--subjects", help=f"subjects, separated by commas, of: {', '.join(ALL)}")
    parser.add_argument("--kars", default=str(REPOSITORY / ".venv/bin/kars") + " router", help="the router's command")
    parser.add_argument("--load", default=str(default_binary()), help="the kars_load binary")
    parser.add_argument("--publish", action="store_true", help="put the summary into docs/benchmarks.md, too")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder for the results")
    chosen = parser.parse_args()
    chosen.only = words(chosen.only, SCENARIOS, parser)
    names = chosen.subjects or ",".join(
        name for name, subject in ALL.items() if not subject.is_optional and not (chosen.quick and name in NOT_QUICK)
    )
    chosen.subjects = words(names, ALL, parser)
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    return chosen


def words(text: str, known: Any, parser: argparse.ArgumentParser) -> list[str]:
    """The names in a list separated by commas, in the order in which they are known."""
    given = {word.strip() for word in text.split(",") if word.strip()}
    if given - set(known):
        parser.error(f"no such name: {', '.join(sorted(given - set(known)))} (there are {', '.join(known)})")
    return [name for name in known if name in given]


def default_binary() -> Path:
    """Where cargo puts the load harness."""
    target = os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target"
    return Path(target) / "release" / "kars_load"


def main() -> int:
    """Runs what was asked for; 0 when nothing was wrong, whatever the targets say."""
    chosen = options()
    if not os.access(chosen.load, os.X_OK):
        print(f"{chosen.load} is not there: cargo build --release -p kars_load", file=sys.stderr)
        return 2
    skipped = {name: reason for name in chosen.subjects if (reason := ALL[name].missing(chosen.kars))}
    for name, reason in skipped.items():
        say(f"without {name}: {reason}")
    subjects = [name for name in chosen.subjects if name not in skipped]
    chosen.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "machine": procs.describe_machine(),
        "quick": chosen.quick,
        "subjects": subjects,
        "skipped": [f"{name} ({reason})" for name, reason in skipped.items()],
        "rounds": [],
        "tunnel_rounds": [],
    }
    with tempfile.TemporaryDirectory(prefix="kars-bench-") as folder:
        harness = Harness(str(chosen.load), chosen.kars, Path(folder), chosen.quick)
        harness.open()
        try:
            run(harness, chosen, subjects, results)
        finally:
            harness.close()
            write(chosen.out, results)
    print((chosen.out / "results.md").read_text(encoding="utf-8"))
    if chosen.publish:
        publish(results)
    every = [*results["rounds"], *results["tunnel_rounds"]]
    return 1 if any(row["faults"] for one in every for row in one.values()) else 0


def run(harness: Harness, chosen: argparse.Namespace, names: list[str], results: dict[str, Any]) -> None:
    """Round after round, then what is measured once; the results are kept after every step."""
    subjects, tunnels = [name for name in SUBJECTS if name in names], [name for name in TUNNELS if name in names]
    loads = [name for name in chosen.only if name in ("S1", "S2", "S3", "S4")]
    for number in range(1, chosen.rounds + 1 if loads else 1):
        results["rounds"].append(rounds.run(harness, number, subjects, loads))
        write(chosen.out, results)
    if "S5" in chosen.only:
        for number in range(1, chosen.rounds + 1):
            results["tunnel_rounds"].append(tunnel_rounds.run(harness, number, tunnels))
            write(chosen.out, results)
        results["tunnel_footprints"] = tunnel_memory.footprints(harness, tunnels)
        write(chosen.out, results)
    if "S6" in chosen.only:
        results["cold"] = memory.cold_starts(harness, subjects)
        results["footprints"] = memory.footprints(harness, subjects)
        write(chosen.out, results)
    if "kars" not in subjects:
        return
    if "S7" in chosen.only:
        results["reload"] = reload.run(harness)
        write(chosen.out, results)
    if "budget" in chosen.only:
        results["budget"] = budget.run(harness)
    if "age" in chosen.only:
        results["age"] = endurance.run(harness)


def write(out: Path, results: dict[str, Any]) -> None:
    """Writes figures, tables and picture."""
    results["targets"] = [vars(verdict) for verdict in targets.verdicts(results)]
    (out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")
    (out / "results.md").write_text(report.markdown(results), encoding="utf-8")
    (out / "plot.svg").write_text(plot.svg(results), encoding="utf-8")


def publish(results: dict[str, Any]) -> None:
    """Replaces the summary in the documentation, and its picture."""
    page = REPOSITORY / "docs" / "benchmarks.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{BEGIN}\n{report.summary(results)}\n{END}{after}", encoding="utf-8")
    page.with_suffix(".svg").write_text(plot.svg(results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
