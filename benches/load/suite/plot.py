"""One picture of it all, drawn as plain SVG: CPU by subject and load, as multiples of the floor."""

from __future__ import annotations

import math
import statistics
from html import escape
from typing import Any

from . import targets
from .loads import LOADS
from .tunnels.loads import LOADS as TUNNELS

SHOWN = ("json", "json_100k", "paced_128", "burst", "connects", "pingpong_32", "bulk_8")
COLOURS = {"kars": "#0b6e4f", "kars-plain": "#7fbf9f", "floor": "#9aa0a6", "envoy": "#b0413e"}
OTHER = "#c9b458"
WIDTH, LEFT, BAR, GAP, TITLE = 760, 130, 16, 5, 34


def svg(results: dict[str, Any]) -> str:
    """The picture; loads below each other, one bar for every subject."""
    y = 44
    parts = [
        text((12, 24), "CPU per call, event, stream or tunnel, as a multiple of the floor (log scale)", 15, bold=True)
    ]
    for name in SHOWN:
        bars = load_bars(results, name)
        if not bars:
            continue
        load = LOADS.get(name) or TUNNELS[name]
        parts.append(text((12, y + 18), f"{load.scenario}  {load.about}", 13, bold=True))
        y += TITLE - 8
        top = max(value for _, value in bars)
        for subject, value in bars:
            parts += bar(subject, value, top, y)
            y += BAR + GAP
        y += 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', *parts, "</svg>"]) + "\n"


def load_bars(results: dict[str, Any], load: str) -> list[tuple[str, float]]:
    """Subjects and their median ratio to the floor, cheapest first."""
    rounds = targets.TUNNELS if load in TUNNELS else "rounds"
    names = {name for one in results[rounds] for name in one if name != "direct"}
    found = []
    for name in names:
        ratios = targets.per_round(results, targets.ratio(load, name, "floor"), rounds)
        if ratios:
            found.append((name, statistics.median(ratios)))
    return sorted(found, key=lambda pair: pair[1])


def bar(subject: str, value: float, top: float, y: float) -> list[str]:
    # From half the floor to the dearest, on a logarithmic scale.
    span = max(math.log(max(top, 2) / 0.5), 1e-9)
    length = max(2.0, math.log(max(value, 0.51) / 0.5) / span * (WIDTH - LEFT - 80))
    colour = COLOURS.get(subject, OTHER)
    return [
        text((LEFT - 8, y + 12), subject, 12, anchor="end"),
        f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
        text((LEFT + length + 6, y + 12), f"{value:.2f}" if value < 100 else f"{value:.0f}", 12),
    ]


def text(at: tuple[float, float], words: str, size: int, *, bold: bool = False, anchor: str = "start") -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" font-family="sans-serif" font-size="{size}" '
        f'text-anchor="{anchor}"{weight} fill="#222">{escape(words)}</text>'
    )
