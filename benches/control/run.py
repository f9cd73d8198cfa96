#!/usr/bin/env python3
"""Measures the controller with many sandboxes on a real control plane: etcd, kube-apiserver, kube-controller-manager.

  make bench-control                                     quick: 100 sandboxes, about four minutes
  python3 benches/control/run.py --sandboxes 1000        for published tables, about half an hour
  python3 benches/control/run.py --quick --only create   one phase (and what it needs)

Both charts are installed as helm installs them; the controller is the real process with the chart's account, rights and
variables. Pods turn ready by kwok; routers are stood in for by `echo_farm.py`. Everything runs in a network namespace
of its own where that is allowed. Results: benches/control/out/results.{json,md}, plot.svg; `--publish` puts them into
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benches" / "load")]

from suite import procs  # noqa: E402

from benches.control import phases, report  # noqa: E402
from benches.control.window import memory_mb  # noqa: E402
from benches.control.world import World, opened  # noqa: E402

PHASES = {
    "create": "from nothing to steady",
    "steady": "nothing changes",
    "resync": "every sandbox is looked at once more because its time has come",
    "change": "one sandbox's spec changes",
    "share": "every sandbox turns to one policy",
    "spread": "that policy changes",
    "restart": "the controller is restarted",
    "failover": "the leader is killed",
    "delete": "every sandbox goes",
}
# Seconds in which every resource is looked at again: `engine.RESYNC` and a fifth.
RESYNC_SECONDS = 365.0
INSIDE = "KARS_BENCH_INSIDE"


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Phases: " + "; ".join(f"{name}, {about}" for name, about in PHASES.items()) + ".",
    )
    parser.add_argument("--quick", action="store_true", help="100 sandboxes, short windows, no resync")
    parser.add_argument("--sandboxes", type=int, help="how many (default 1000, quick 100)")
    parser.add_argument("--only", help="phases, separated by commas; `create` comes always")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until a router has a changed mount in force")
    parser.add_argument("--publish", action="store_true", help="put the results into docs/benchmarks.md, too")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder for the results")
    parser.add_argument("--keep", action="store_true", help="keep the control plane's folder, with its logs")
    chosen = parser.parse_args()
    chosen.sandboxes = chosen.sandboxes or (100 if chosen.quick else 1000)
    named = {name.strip() for name in (chosen.only or ",".join(PHASES)).split(",")}
    if unknown := named - set(PHASES):
        parser.error(f"no such phase: {', '.join(sorted(unknown))} (there are {', '.join(PHASES)})")
    if "spread" in named:
        named.add("share")
    if chosen.quick and not chosen.only:
        named.discard("resync")
    chosen.only = [name for name in PHASES if name in named | {"create"}]
    return chosen


def go_inside() -> None:
    """Become a process of a network namespace of its own, with a loopback and nothing else, where that is allowed.

    The stand-in listens on every address of the loopback, which would be in the way of others on this machine.
    """
    if os.environ.get(INSIDE):
        return
    unshare = ["unshare", "--net", *([] if os.getuid() == 0 else ["--map-root-user"])]
    inside = [*unshare, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[INSIDE] = "namespace"
        os.execvp(inside[0], [*inside, sys.executable, *sys.argv])
    os.environ[INSIDE] = "machine"


async def measure(chosen: argparse.Namespace, folder: Path, results: dict[str, Any]) -> None:
    """Phase after phase; results are written after each."""
    async with opened(folder, delay=chosen.delay) as world:
        controller = world.leader = await world.start_controller()
        await asyncio.sleep(5)
        results["idle"] = memory_mb(controller.process.pid)
        number = chosen.sandboxes
        for name in chosen.only:
            print(f"{name}: {PHASES[name]} ...", file=sys.stderr, flush=True)
            if name == "create":
                found = await phases.create(world, controller, number)
            elif name in {"steady", "resync"}:
                seconds = RESYNC_SECONDS if name == "resync" else 60.0
                found = await phases.steady(world, controller, 20.0 if chosen.quick and not chosen.only else seconds)
            elif name == "change":
                found = await phases.change(world, controller, number, 50 if chosen.quick else 200)
            elif name == "share":
                found = await phases.share(world, controller, number)
            elif name == "spread":
                found = await phases.spread(world, controller, number, 3)
            elif name == "restart":
                controller, found = await phases.restart(world, controller, number)
            elif name == "failover":
                controller, found = await phases.fail_over(world, controller, number)
            else:
                found = await phases.delete(world, controller, number)
            results["phases"][name] = found
            results["controller_log"] = warnings(world)
            write(chosen.out, results)
            print(report.line(name, found), file=sys.stderr, flush=True)


def warnings(world: World) -> dict[str, int]:
    """What the controllers logged that was no information, by message."""
    found: dict[str, int] = {}
    for process in world.installation.controllers:
        for line in process.log.read_text().splitlines():
            if line.startswith("{") and (said := json.loads(line))["level"] not in {"info", "debug"}:
                name = f"{said['level']} {said['msg'][:120]} {str(said.get('error', ''))[:160]}".strip()
                found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items(), key=lambda one: -one[1])[:20])


def write(out: Path, results: dict[str, Any]) -> None:
    """Write figures, table and picture."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    (out / "results.md").write_text(report.markdown(results), encoding="utf-8")
    if "create" in results["phases"]:
        (out / "plot.svg").write_text(report.svg(results), encoding="utf-8")


def main() -> int:
    """Measure what was asked for; 0 when all of it could be measured, whatever the targets say."""
    chosen = options()
    go_inside()
    results: dict[str, Any] = {
        "machine": procs.describe_machine(),
        "load_before": os.getloadavg()[0],
        "quick": chosen.quick,
        "sandboxes": chosen.sandboxes,
        "delay": chosen.delay,
        "network": os.environ[INSIDE],
        "phases": {},
    }
    folder = Path(tempfile.mkdtemp(prefix="kars-bench-control-"))
    try:
        asyncio.run(measure(chosen, folder / "plane", results))
    finally:
        if chosen.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print((chosen.out / "results.md").read_text(encoding="utf-8"))
    if chosen.publish:
        report.publish(results, REPOSITORY / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
