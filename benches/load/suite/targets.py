"""The targets: ratios taken inside each round, the median of them, and whether it is enough."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]
# Where the rounds of S5 stand in the results.
TUNNELS = "tunnel_rounds"
Number = float | None


@dataclass(frozen=True)
class Verdict:
    """One target, judged."""

    target: str
    about: str
    # Shown as it is: `≤ 1.30`.
    limit: str
    value: Number
    spread: tuple[float, float] | None
    is_met: bool | None

    def word(self) -> str:
        """Met, missed or not measured."""
        return {True: "met", False: "**missed**", None: "not measured"}[self.is_met]


def per_round(results: Results, take: Callable[[Results], Number], rounds: str = "rounds") -> list[float]:
    """A figure of each round that has it."""
    found = []
    for one in results[rounds]:
        try:
            value = take(one)
        except (KeyError, TypeError, ZeroDivisionError):
            continue
        if value is not None:
            found.append(value)
    return found


def figure(one: Results, subject: str, load: str, *path: str) -> float:
    """A figure of one subject under one load in one round."""
    value = one[subject]["loads"][load]
    for name in path:
        value = value[name]
    return float(value)


def ratio(load: str, top: str, bottom: str, *path: str) -> Callable[[Results], Number]:
    """One subject's figure by another's; CPU per unit unless said otherwise."""
    where = path or ("cpu_us",)
    return lambda one: figure(one, top, load, *where) / figure(one, bottom, load, *where)


def speed(load: str, top: str, bottom: str, name: str) -> Callable[[Results], Number]:
    """One subject's speed by another's; None where the other's was the harness's own, which would flatter the first."""

    def take(one: Results) -> Number:
        if "†" in one[bottom]["loads"][load]["marks"]:
            return None
        return figure(one, top, load, name) / figure(one, bottom, load, name)

    return take


def difference(load: str, left: str, right: str, *path: str) -> Callable[[Results], Number]:
    """One subject's figure less another's."""
    return lambda one: figure(one, left, load, *path) - figure(one, right, load, *path)


def added(load: str, *path: str) -> Callable[[Results], Number]:
    """What kars adds to the direct figure, by what Envoy adds; None where Envoy adds nothing."""

    def take(one: Results) -> Number:
        direct = figure(one, "direct", load, *path)
        envoy = figure(one, "envoy", load, *path) - direct
        return (figure(one, "kars", load, *path) - direct) / envoy if envoy > 0 else None

    return take


def judge(target: str, about: str, values: Sequence[float], at_most: float, limit: str) -> Verdict:
    """A target that is met when the median does not pass a limit; a negative one is a floor."""
    if not values:
        return Verdict(target, about, limit, None, None, None)
    value = statistics.median(values)
    is_met = value <= at_most if at_most >= 0 else value >= -at_most
    return Verdict(target, about, limit, value, (min(values), max(values)), is_met)


def verdicts(results: Results) -> list[Verdict]:
    """Every target of the data plane."""
    found = [*cost(results), *latency(results), *tunnels(results), *memory(results), *start(results)]
    found.sort(key=lambda verdict: int(verdict.target.removeprefix("T")))
    return [*found, *soundness(results)]


def cost(results: Results) -> list[Verdict]:
    def of(target: str, about: str, take: Callable[[Results], Number], at_most: float, limit: str) -> Verdict:
        return judge(target, about, per_round(results, take), at_most, limit)

    speed = "rps per core, kars ÷ "
    return [
        of("T1", "JSON CPU, governed ÷ floor", ratio("json", "kars", "floor"), 1.30, "≤ 1.30"),
        of("T1", "JSON CPU, governed ÷ Envoy without policy", ratio("json", "kars", "envoy"), 0.55, "≤ 0.55"),
        of("T1", f"{speed}LiteLLM 1.74.9", ratio("json", "litellm", "kars"), -250, "≥ 250"),
        of("T1", f"{speed}TensorZero", ratio("json", "tensorzero", "kars"), -6, "≥ 6"),
        of("T2", "JSON CPU, governed ÷ plain kars", ratio("json", "kars", "kars-plain"), 1.20, "≤ 1.20"),
        of("T2", "p99 added by governance, µs", difference("json", "kars", "kars-plain", "call_us", "p99"), 50, "≤ 50"),
        of("T3", "CPU per paced event ÷ Envoy", ratio("paced_128", "kars", "envoy"), 0.75, "≤ 0.75"),
        of("T3", "CPU per paced event ÷ floor", ratio("paced_128", "kars", "floor"), 1.08, "≤ 1.08"),
        of("T6", "CPU per burst stream ÷ Envoy", ratio("burst", "kars", "envoy"), 1.0, "≤ 1.0"),
        of("T6", "CPU per burst stream ÷ naive hyper", ratio("burst", "kars", "naive"), 0.10, "≤ 0.10"),
    ]


def latency(results: Results) -> list[Verdict]:
    def of(target: str, about: str, take: Callable[[Results], Number], at_most: float, limit: str) -> Verdict:
        return judge(target, about, per_round(results, take), at_most, limit)

    first, event = "first_event_us", "event_us"
    late = per_round(results, lambda one: figure(one, "kars", "paced_128", event, "late"))
    seen = sum(per_round(results, lambda one: figure(one, "kars", "paced_128", event, "n")))
    enough = f"paced events > 10 ms late, of {seen:,.0f}" + ("" if seen >= 100_000 else " (want 100 000)")
    return [
        of("T4", "event latency added ÷ Envoy's, p50", added("paced_128", event, "p50"), 0.45, "≤ 0.45"),
        of("T4", "event latency added ÷ Envoy's, p99", added("paced_128", event, "p99"), 0.55, "≤ 0.55"),
        of("T4", "time to first token added ÷ Envoy's", added("paced_128", first, "p50"), 0.6, "≤ 0.6"),
        judge("T5", enough, [sum(late)] if late else [], 0, "0"),
        of(
            "T5",
            "Nagle'd upstream: event p99 ÷ direct",
            ratio("nagle", "kars", "direct", event, "p99"),
            1 / 30,
            "≤ 0.033",
        ),
        of(
            "T5",
            "Nagle'd upstream: time to first token below direct, ms",
            lambda one: difference("nagle", "direct", "kars", first, "p50")(one) / 1e3,
            -15,
            "≥ 15",
        ),
    ]


def tunnels(results: Results) -> list[Verdict]:
    def of(target: str, about: str, take: Callable[[Results], Number], at_most: float, limit: str) -> Verdict:
        return judge(target, about, per_round(results, take, TUNNELS), at_most, limit)

    def faster(load: str, other: str) -> Callable[[Results], Number]:
        return speed(load, "kars", other, "ops_per_s" if load == "connects" else "gb_per_s")

    return [
        of("T7", "CPU per tunnel, governed ÷ Envoy", ratio("connects", "kars", "envoy"), 0.62, "≤ 0.62"),
        of("T7", "tunnels opened per second ÷ Envoy", faster("connects", "envoy"), -1.6, "≥ 1.6"),
        of("T7", "CPU per byte to and fro, 32 tunnels ÷ Envoy", ratio("pingpong_32", "kars", "envoy"), 0.75, "≤ 0.75"),
        of("T8", "CPU per MB, 8 tunnels ÷ Envoy", ratio("bulk_8", "kars", "envoy"), 0.78, "≤ 0.78"),
        of("T8", "GB/s, 8 tunnels ÷ Envoy", faster("bulk_8", "envoy"), -1.25, "≥ 1.25"),
        of("T8", "GB/s, 8 tunnels ÷ copies of 8 KiB", faster("bulk_8", "copy8k"), -2.8, "≥ 2.8"),
        of("T8", "GB/s, 1 tunnel ÷ Envoy", faster("bulk_1", "envoy"), -0.95, "≥ 0.95"),
    ]


def memory(results: Results) -> list[Verdict]:
    footprints = results.get("footprints", {})

    def kb(subject: str, *path: str) -> Number:
        value = footprints.get(subject, {})
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def by(other: str, *path: str) -> list[float]:
        mine, theirs = kb("kars", *path), kb(other, *path)
        return [mine / theirs] if mine is not None and theirs else []

    def mine(*path: str, scale: float = 1024) -> list[float]:
        value = kb("kars", *path)
        return [] if value is None else [value / scale]

    return [
        judge("T9", "idle RSS ÷ Envoy", by("envoy", "idle", "rss"), 0.20, "≤ 0.20"),
        judge("T9", "idle RSS, MiB", mine("idle", "rss"), 13, "≤ 13"),
        judge("T9", "idle USS, MiB", mine("idle", "uss"), 6, "≤ 6"),
        judge("T9", "RSS with the control plane resident ÷ Envoy", by("envoy", "settled", "rss"), 0.45, "≤ 0.45"),
        judge("T9", "KiB per concurrent stream ÷ Envoy", by("envoy", "per_stream"), 0.30, "≤ 0.30"),
        judge("T9", "MiB per stalled reader", mine("per_stalled"), 1.0, "≤ 1"),
        judge("T9", "idle RSS ÷ LiteLLM", by("litellm", "idle", "rss"), 1 / 15, "≤ 0.067"),
    ]


def start(results: Results) -> list[Verdict]:
    cold, reload = results.get("cold", {}), results.get("reload", {})

    def by(other: str) -> list[float]:
        if "kars" not in cold or other not in cold:
            return []
        return [cold["kars"]["median_ms"] / cold[other]["median_ms"]]

    taken = [took for took in reload.get("to_effect_ms", []) if took is not None]
    never = reload and len(taken) < len(reload["to_effect_ms"])
    p99 = (reload.get("p99_reload_us"), reload.get("p99_steady_us"))
    return [
        judge("T10", "first proxied 200 ÷ Envoy", by("envoy"), 0.35, "≤ 0.35"),
        judge("T10", "first proxied 200 ÷ LiteLLM", by("litellm"), 0.01, "≤ 0.01"),
        judge("T10", "10 000 rules take effect, ms" + (" (some never did)" if never else ""), taken, 10, "≤ 10"),
        judge("T10", "failed calls during reloads", [reload["failed"]] if reload else [], 0, "0"),
        judge("T10", "p99 during reloads ÷ without", [p99[0] / p99[1]] if all(p99) else [], 1.2, "≤ 1.2"),
    ]


def soundness(results: Results) -> list[Verdict]:
    """What no target is worth anything without."""
    windows = [row["cpu_us"] for row in results.get("age", {}).get("windows", {}).values() if row.get("cpu_us")]
    restart = [results.get("age", {}).get(name) for name in ("restart_ms", "first_start_ms")]
    # Windows of the loads are the subject's own; a fault anywhere in them counts.
    every = (("rounds", "loads"), (TUNNELS, "tunnels"))
    faults = {
        about: [float(len(one["kars"]["faults"])) for one in results[key] if "kars" in one] for key, about in every
    }
    budget = results.get("budget")
    # Stopping short of what still fits is as wrong as passing the limit.
    spent = [budget["spent"] / budget["limit"] if budget["is_exact"] else float("inf")] if budget else []
    ages = list(results.get("age", {}).get("windows", {}))
    span = f"after {ages[-1]} calls ÷ after {ages[0]}" if len(ages) > 1 else "by age"
    return [
        *(
            judge("sound", f"faults in the {about} and their books", [sum(found)] if found else [], 0, "0")
            for about, found in faults.items()
        ),
        judge("sound", "tokens spent of the budget's", spent, 1.0, "≤ 1, within a reservation"),
        judge("age", f"CPU per call {span}", [windows[-1] / windows[0]] if len(windows) > 1 else [], 1.1, "≤ 1.1"),
        judge(
            "age",
            "start on the old audit log ÷ first start",
            [restart[0] / restart[1]] if all(restart) else [],
            1.5,
            "≤ 1.5",
        ),
    ]
