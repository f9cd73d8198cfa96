"""What was measured, as a line, a table and a page's section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Results = dict[str, Any]

BEGIN, END = "<!-- control: written by run.py --publish -->", "<!-- end of control -->"
PLOT = "benchmarks-control.svg"
# What the reference's controller took for 100 sandboxes and 100 policies, on another machine.
REFERENCE = (
    "The reference's controller, on another machine, pods left pending: 100 sandboxes and 100 policies in 147 s, 16 500"
    " writes, 38 s of CPU, 87 MB; it never settles."
)
# What each policy is: a ConfigMap, and the resource that it is made of.
POLICY_KINDS = ("inferencepolicies", "toolpolicies")


def line(name: str, found: Results) -> str:
    """Return one phase's figures in a line for a terminal."""
    plain = {key: value for key, value in found.items() if isinstance(value, (int, float, str))}
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in plain.items())


def creation(made: Results) -> list[tuple[str, str]]:
    """Return what it took to make everything."""
    number, cpu, curve = made["number"], made["cpu_seconds"], made["curve"]
    looks = sum(count for what, count in made["reconciles"].items() if what.endswith("success"))
    policies = number + 1  # each sandbox's own InferencePolicy, and the ToolPolicy of them all
    by_policies = policies + sum(
        count for what, count in made["requests"].items() if what.startswith("PATCH ") and what.endswith(POLICY_KINDS)
    )
    sandboxes, by_sandboxes = made["made"] - policies, made["writes"] - by_policies
    return [
        (
            "from nothing to the first sandbox Ready, to half of them, to every one",
            f"{curve[0]:.0f} s, {curve[len(curve) // 2]:.0f} s, {made['seconds']:.0f} s",
        ),
        (
            "writes of a sandbox for each of its objects (target: at most 1.2)",
            f"{by_sandboxes / sandboxes:.2f} ({by_sandboxes / number:.1f} for {sandboxes / number:.1f})",
        ),
        ("writes of a policy for its one object", f"{by_policies / policies:.1f}"),
        ("events of a sandbox and its policy", f"{made['requests'].get('POST events', 0) / number:.1f}"),
        (
            "requests in all, by the controller's count and by the API server's",
            f"{sum(made['requests'].values())}, {made['by_server']}",
        ),
        ("reconciles a second", f"{looks / made['seconds']:.0f}"),
        ("CPU of the controller, of the API server", f"{cpu['controller']:.0f} s, {cpu['api_server']:.0f} s"),
        (
            "memory of the controller: idle, at its peak, settled",
            f"{made['idle']['rss_mb']:.0f} MB, {made['memory']['peak_mb']:.0f} MB,"
            f" {made['memory_settled']['rss_mb']:.0f} MB",
        ),
    ]


def rows(results: Results) -> list[tuple[str, str]]:
    """Return what and how much."""
    phases, found = results["phases"], []
    if made := phases.get("create"):
        found += creation(made | {"idle": results["idle"]})
    for name, what in (("steady", "nothing changes"), ("resync", "everything is looked at once more")):
        if still := phases.get(name):
            asked = sum(still["beyond"].values())
            window = f"requests in {still['seconds']:.0f} s, {what} (target: 0 beyond watches and the lease)"
            found.append((window, f"{asked}"))
    if changed := phases.get("change"):
        times = changed["milliseconds"]
        what = f"a spec's change until it is applied: median, p99 of {times['samples']}"
        found.append((what, f"{times['p50']:.0f} ms, {times['p99']:.0f} ms"))
    if spread := phases.get("spread"):
        times = ", ".join(f"{one:.1f} s" for one in spread["policy_seconds"])
        found.append(("a change of the one policy of all until every router has said so, three times", times))
    if again := phases.get("restart"):
        looked = f"{again['looked_seconds']:.1f} s; {again['writes']}"
        found.append(("a restart until every sandbox was looked at; writes", looked))
    if followed := phases.get("failover"):
        what = "the leader killed until the standby's first reconcile (its lease is 15 s)"
        found.append((what, f"{followed['first_seconds']:.1f} s"))
    if gone := phases.get("delete"):
        found.append(("every sandbox gone", f"{gone['seconds']:.0f} s"))
    return found


def markdown(results: Results) -> str:
    """Return the table, and under what it was measured."""
    machine = results["machine"]
    body = "\n".join(f"| {what} | {much} |" for what, much in rows(results))
    return (
        f"| {results['sandboxes']} sandboxes, each with a policy of its own | |\n|---|---|\n{body}\n\n"
        f"{machine['cpu']}, {machine['cores']} cores for etcd, API server, controllers and all that stands in; load"
        f" before: {results['load_before']:.1f}. {REFERENCE}\n"
    )


def svg(results: Results) -> str:
    """Return the picture of how many sandboxes were Ready when: seconds from the first request on."""
    curve = results["phases"]["create"]["curve"]
    width, height, left, top, foot = 720, 300, 56, 34, 36
    across, down = width - left - 24, height - top - foot
    most = max(curve[-1], 1.0)
    step = next(one for one in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 3600) if most / one <= 8)

    def at(seconds: float, count: float) -> str:
        return f"{left + seconds / most * across:.1f},{top + down - count / len(curve) * down:.1f}"

    grid = [
        f'<path d="M{at(0, part)} L{at(most, part)}" stroke="#e2e8f0"/>'
        f'<text x="{left - 8}" y="{float(at(0, part).split(",")[1]) + 4:.1f}" text-anchor="end">{part:.0f}</text>'
        for part in (len(curve) * quarter / 4 for quarter in range(5))
    ]
    ticks = [
        f'<text x="{at(seconds, 0).split(",")[0]}" y="{height - foot + 18}" text-anchor="middle">{seconds} s</text>'
        for seconds in range(0, int(most) + 1, step)
    ]
    points = " ".join([at(0, 0), *(at(moment, index + 1) for index, moment in enumerate(curve))])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(grid)}{"".join(ticks)}'
        f'<polyline fill="none" stroke="#2b6cb0" stroke-width="2" points="{points}"/>'
        f'<text x="{left}" y="20">Sandboxes that are Ready, after {len(curve)} were created at once</text></svg>\n'
    )


def publish(results: Results, docs: Path) -> None:
    """Put table and picture into the page of benchmarks, in place of those before."""
    page = docs / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    picture = f"![Sandboxes that are Ready over time]({PLOT})"
    page.write_text(f"{head}{BEGIN}\n\n{markdown(results)}\n{picture}\n\n{END}{tail}", encoding="utf-8")
    (docs / PLOT).write_text(svg(results), encoding="utf-8")
