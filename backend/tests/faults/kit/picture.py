"""A run as a picture: what was sent, what arrived and how late, with the fault marked (SVG, light and dark)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT, TOP = 760, 64, 14, 58
PANEL_HEIGHT, GAP = 74, 26
LABEL_PIXELS = 6.3  # of a character, about
LONG_TITLE = 90  # characters

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #52514e }
.title { font-size: 14px; font-weight: 600; fill: #0b0b0b }
.panel { fill: #0b0b0b; font-weight: 600 }
.axis { stroke: #d9d8d4; stroke-width: 1 }
.fault { fill: #d03b3b; opacity: .13 }
.fault-edge { stroke: #d03b3b; stroke-width: 1; stroke-dasharray: 3 3 }
.fault-name { fill: #a32c2c }
.sent { fill: none; stroke: #6b6a66; stroke-width: 1.5 }
.arrived { fill: #2a78d6; opacity: .85 }
.late { fill: #b25f00 }
@media (prefers-color-scheme: dark) {
  text { fill: #c3c2b7 } .title, .panel { fill: #fff }
  .axis { stroke: #403f3c } .fault { opacity: .25 } .fault-name { fill: #f09a9a }
  .sent { stroke: #a8a79f } .arrived { fill: #5598e7 } .late { fill: #eda100 }
}
"""


Values = Sequence[tuple[int, float]]  # (bucket, value)
Place = Callable[[float], float]  # of a bucket or a value, in pixels
Drawing = Callable[[Values, Place, Place], str]


@dataclass(frozen=True, slots=True)
class Panel:
    """One quantity over time."""

    name: str
    values: Values
    draw: Drawing


def draw(row: dict[str, Any]) -> str:
    """Draw a scenario's result (see Scene.write_result) that has a timeline."""
    timeline = row["timeline"]
    seconds = timeline["bucket_seconds"]
    buckets = timeline["buckets"]
    whole = max(((buckets[-1][0] + 1) * seconds if buckets else 0.0), *(fault[1] for fault in timeline["faults"]), 1.0)
    panels = [
        Panel("sends acknowledged per second", [(b[0], b[1] / seconds) for b in buckets], _line),
        Panel("deliveries per second", [(b[0], b[2] / seconds) for b in buckets], _bars("arrived")),
        Panel("longest delay of a delivery, seconds", [(b[0], b[3]) for b in buckets], _bars("late")),
    ]
    height = TOP + len(panels) * (PANEL_HEIGHT + GAP) + 22

    def x_of(bucket: float) -> float:
        return LEFT + bucket * seconds / whole * (WIDTH - LEFT - RIGHT)

    title = f"{row['number']}: {row['title']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="16"{_fitted(title)}>{escape(title)}</text>',
    ]
    bottom = TOP + len(panels) * (PANEL_HEIGHT + GAP) - GAP
    for place, (begin, end, name) in enumerate(timeline["faults"]):
        parts.append(_fault(x_of(begin / seconds), x_of(end / seconds), bottom, name, is_named=place == 0))
    for place, panel in enumerate(panels):
        parts.append(_panel(panel, TOP + place * (PANEL_HEIGHT + GAP), x_of))
    step = next(step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600) if whole / step <= 10)
    parts += [
        f'<text x="{x_of(tick / seconds):.1f}" y="{bottom + 18}" text-anchor="middle">{tick} s</text>'
        for tick in range(0, math.floor(whole) + 1, step)
    ]
    return "\n".join([*parts, "</svg>", ""])


def _fitted(title: str) -> str:
    """Draw a long title narrower, as wide as the picture."""
    return f' textLength="{WIDTH - LEFT - RIGHT}" lengthAdjust="spacingAndGlyphs"' if len(title) > LONG_TITLE else ""


def _panel(panel: Panel, top: float, x_of: Place) -> str:
    highest = _rounded_up(max((value for _, value in panel.values), default=1.0))
    bottom = top + PANEL_HEIGHT

    def y_of(value: float) -> float:
        return bottom - value / highest * (PANEL_HEIGHT - 4)

    return "\n".join(
        [
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>',
            f'<text x="{LEFT - 6}" y="{y_of(highest) + 8:.1f}" text-anchor="end">{highest:,g}</text>',
            f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
            panel.draw(panel.values, x_of, y_of),
            f'<text class="panel" x="{LEFT}" y="{top - 4}">{escape(panel.name)}</text>',
        ]
    )


def _fault(left: float, right: float, bottom: float, name: str, *, is_named: bool) -> str:
    width = max(right - left, 1.5)
    drawn = (
        f'<rect class="fault" x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{bottom - TOP}"/>'
        f'<line class="fault-edge" x1="{left:.1f}" x2="{left:.1f}" y1="{TOP}" y2="{bottom}"/>'
    )
    if is_named:
        at_end = left + len(name) * LABEL_PIXELS > WIDTH - RIGHT
        x, anchor = (WIDTH - RIGHT, "end") if at_end else (left, "start")
        drawn += f'<text class="fault-name" x="{x:.1f}" y="{TOP - 22}" text-anchor="{anchor}">{escape(name)}</text>'
    return drawn


def _line(values: Values, x_of: Place, y_of: Place) -> str:
    known = dict(values)
    last = max(known, default=0)
    points = " ".join(f"{x_of(n + 0.5):.1f},{y_of(known.get(n, 0)):.1f}" for n in range(last + 1))
    return f'<polyline class="sent" points="{points}"/>'


def _bars(
    kind: str,
) -> Callable[[Sequence[tuple[int, float]], Callable[[float], float], Callable[[float], float]], str]:
    def bars(
        values: Sequence[tuple[int, float]], x_of: Callable[[float], float], y_of: Callable[[float], float]
    ) -> str:
        shapes = [
            f"M{x_of(n):.1f} {y_of(0):.1f}V{y_of(value):.1f}H{x_of(n + 1):.1f}V{y_of(0):.1f}Z"
            for n, value in values
            if value > 0
        ]
        return f'<path class="{kind}" d="{"".join(shapes)}"/>'

    return bars


def _rounded_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power * 1.0001)
