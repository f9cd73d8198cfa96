"""The results as people read them: one Markdown file."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from . import targets
from .loads import LOADS, Load
from .subjects import SUBJECTS
from .tables import short, table
from .tunnels import report as tunnels

Results = dict[str, Any]


def markdown(results: Results) -> str:
    """The whole report."""
    parts = [
        "# Benchmark results",
        conditions(results),
        *([f"Not run: {'; '.join(results['skipped'])}."] if results["skipped"] else []),
        "## Targets",
        target_table(results),
        *load_sections(results),
        *tunnels.sections(results),
        *extra_sections(results),
        fault_section(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(results: Results) -> str:
    """Subjects against each other in one table, then the targets."""
    loads = [LOADS[name] for name in ("json", "json_100k", "paced_128", "burst")]
    rows = [row for name in SUBJECTS if (row := summary_row(results, loads, name))]
    head = ["CPU ÷ floor", *(load.about for load in loads), "idle RSS MiB", "KiB per stream", "start ms"]
    picture = "![CPU per call, event and stream](benchmarks.svg)"
    parts = [conditions(results), table(head, rows), tunnels.summary(results), picture, target_table(results)]
    return "\n\n".join(["", *(part for part in parts if part), ""])


def summary_row(results: Results, loads: list[Load], name: str) -> list[str]:
    """One subject, ratios first; empty when it did not run."""
    ratios = [targets.per_round(results, targets.ratio(load.name, name, "floor")) for load in loads]
    if not any(ratios):
        return []
    memory, cold = results.get("footprints", {}).get(name, {}), results.get("cold", {}).get(name, {})
    rest = [
        f"{memory['idle']['rss'] / 1024:.1f}" if "idle" in memory else "",
        f"{memory['per_stream']:.1f}" if memory.get("per_stream") is not None else "",
        f"{cold['median_ms']:.1f}" if cold else "",
    ]
    return [name, *(short(statistics.median(taken)) if taken else "" for taken in ratios), *rest]


def conditions(results: Results) -> str:
    """What the figures were taken on, and how."""
    machine = results["machine"]
    rounds = len(results["rounds"] or results["tunnel_rounds"])
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}; "
        f"{rounds} round(s){', quick windows' if results['quick'] else ''}. "
        "Subject on one core, client and server on another, loopback, HTTP/1.1 without TLS. "
        "Ratios are taken inside each round; the median of them is shown. Only ratios mean anything elsewhere."
    )


def target_table(results: Results) -> str:
    rows = []
    for verdict in targets.verdicts(results):
        value = "" if verdict.value is None else short(verdict.value)
        if verdict.spread and verdict.spread[0] != verdict.spread[1]:
            value += f" [{short(verdict.spread[0])}-{short(verdict.spread[1])}]"
        rows.append([verdict.target, verdict.about, verdict.limit, value, verdict.word()])
    return table(["", "target", "limit", "measured", "verdict"], rows)


def load_sections(results: Results) -> list[str]:
    """A table for every load that was run."""
    sections = []
    for load in LOADS.values():
        rows = [row for name in SUBJECTS if (row := load_row(results, load, name))]
        if not rows:
            continue
        unit = "call" if load.unit == "calls" else "event"
        streams = load.stream
        head = ["", f"{unit}s/s", f"CPU µs/{unit}", "÷ floor", "÷ Envoy"]
        head += ["event p50 / p99 / max µs", "first token p50 / p99 ms"] if streams else ["p50 / p99 µs"]
        head += ["added p50 / p99 µs", "CPU %", "marks"]
        sections += [f"## {load.scenario}: {load.about}", table(head, rows)]
    if sections:
        sections.append(
            "† client and mock used their whole core while the subject did not: read CPU, not speed. "
            "\\* strangers used more than a tenth of a core meanwhile."
        )
    return sections


def load_row(results: Results, load: Load, name: str) -> list[str] | None:
    reports = [one[name]["loads"].get(load.name) for one in results["rounds"] if name in one]
    reports = [report for report in reports if report]
    if not reports:
        return None
    good = [report for report in reports if "error" not in report and report.get("calls")]
    if not good:
        return [name, "failed"] + [""] * (8 if load.stream else 7)

    def middle(take: Callable[[Results], float]) -> float:
        return statistics.median(take(report) for report in good)

    speed = "calls_per_s" if load.unit == "calls" else "events_per_s"
    row = [name, f"{middle(lambda r: r[speed]):,.0f}", f"{middle(lambda r: r['cpu_us'] or 0):.2f}"]
    for other in ("floor", "envoy"):
        shares = targets.per_round(results, targets.ratio(load.name, name, other))
        row.append(short(statistics.median(shares)) if shares else "")
    if load.stream:
        event = [middle(lambda r, q=q: r["event_us"][q]) for q in ("p50", "p99", "max")]
        first = [middle(lambda r, q=q: r["first_event_us"][q]) / 1e3 for q in ("p50", "p99")]
        row += [" / ".join(f"{value:,.0f}" for value in event), " / ".join(f"{value:.2f}" for value in first)]
    else:
        row.append(" / ".join(f"{middle(lambda r, q=q: r['call_us'][q]):,.0f}" for q in ("p50", "p99")))
    where = "event_us" if load.unit == "events" else "call_us"
    more = [targets.per_round(results, targets.difference(load.name, name, "direct", where, q)) for q in ("p50", "p99")]
    row.append("" if name == "direct" else " / ".join(f"{statistics.median(taken):,.0f}" for taken in more if taken))
    marks = "".join(sorted(set("".join(report["marks"] for report in good))))
    return [*row, f"{middle(lambda r: r['cpu_percent']):.0f}", marks.replace("*", "\\*")]


def extra_sections(results: Results) -> list[str]:
    """Memory, start, reload, age."""
    sections = []
    footprints = {name: row for name, row in results.get("footprints", {}).items() if "idle" in row}
    if footprints:
        head = ["", "idle RSS (USS) MiB", "after 3 s", "after load", "KiB per stream", "KiB per stalled reader"]
        rows = []
        for name, row in footprints.items():
            memory = [
                f"{row[state]['rss'] / 1024:.1f} ({row[state]['uss'] / 1024:.1f})"
                for state in ("idle", "settled", "loaded")
            ]
            growth = ["" if row.get(key) is None else f"{row[key]:,.1f}" for key in ("per_stream", "per_stalled")]
            rows.append([name, *memory, *growth])
        sections += ["## S6: memory", table(head, rows)]
    if results.get("cold"):
        rows = [
            [name, f"{row['median_ms']:.1f}", f"{row['min_ms']:.1f}-{row['max_ms']:.1f}", str(row["n"])]
            for name, row in results["cold"].items()
        ]
        sections += ["## S6: start to first proxied 200", table(["", "median ms", "min-max", "starts"], rows)]
    if reload := results.get("reload"):
        rows = [[name, str(value)] for name, value in reload.items() if value not in ("", None)]
        sections += ["## S7: policy reload under load", table(["", ""], rows)]
    if age := results.get("age"):
        rows = [
            [
                f"{int(calls):,}",
                f"{row['cpu_us']}",
                f"{row['p50']} / {row['p99']}",
                f"{(row['rss_kb'] or 0) / 1024:.1f}",
            ]
            for calls, row in age["windows"].items()
        ]
        rest = ", ".join(f"{name} {value}" for name, value in age.items() if name != "windows")
        sections += [
            "## Cost of a call by the age of the process",
            table(["calls before", "CPU µs/call", "p50 / p99 µs", "RSS MiB"], rows),
            rest,
        ]
    return sections


def fault_section(results: Results) -> str:
    """Everything that was wrong, round by round."""
    lines = [
        f"- round {number}, {name}: {fault}"
        for rounds in (results["rounds"], results["tunnel_rounds"])
        for number, one in enumerate(rounds, 1)
        for name, row in one.items()
        for fault in row["faults"]
    ]
    return "## Faults\n\n" + (
        "\n".join(lines) if lines else "None: all that was asked for came, whole, in order and once."
    )
