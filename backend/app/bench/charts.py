"""Charts as SVG inside HTML: no script, no library, readable in light and dark and on paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from app.bench.results import Chart, Line

WIDTH: Final = 560
HEIGHT: Final = 270
LEFT, RIGHT, TOP, BOTTOM = 80, 14, 14, 46
TICKS: Final = 5
WIDE_RANGE: Final = 20.0  # largest to smallest; above, times are drawn on a logarithmic scale
DOTS: Final = 40  # points of a line up to which each is marked, with its value for whoever points at it
_PERCENTILES: Final = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)

Scale = Callable[[float], float]


def number(value: float) -> str:
    """Write a number as a person reads it: three digits that matter, thousands apart."""
    if value and abs(value) < 1000:  # noqa: PLR2004 - below, digits after the point matter
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004
    return f"{round(value, 2 - int(math.log10(abs(value)))):,.0f}" if value else "0"


def draw(chart: Chart) -> str:
    """Draw a chart; an empty text when it has no points."""
    if not any(line.points for line in chart.lines):
        return ""
    if chart.kind == "bars":
        inside = _bars(chart)
    elif chart.kind == "percentiles":
        inside = _percentiles(chart)
    else:
        inside = _lines(chart)
    legend = "".join(
        f'<span class="key k{place % 4}">{escape(line.name)}</span>' for place, line in enumerate(chart.lines)
    )
    label = escape(f"{chart.title}, {chart.y} by {chart.x}")
    return (
        f"<figure><figcaption>{escape(chart.title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{inside}</svg>'
        f'<div class="legend">{legend if len(chart.lines) > 1 else ""}</div></figure>'
    )


def _lines(chart: Chart) -> str:
    xs = [x for line in chart.lines for x, _ in line.points]
    x_ticks = nice_ticks(0.0, max(xs))
    x_scale = _linear(0.0, x_ticks[-1], LEFT, WIDTH - RIGHT)
    y_ticks = nice_ticks(0.0, _top(chart))
    y_scale = _linear(0.0, y_ticks[-1], HEIGHT - BOTTOM, TOP)
    return "".join(
        [
            _axes(chart, [(x_scale(x), number(x)) for x in x_ticks], [(y_scale(y), number(y)) for y in y_ticks]),
            _target(chart, y_scale),
            *(_path(chart, line, place, x_scale, y_scale) for place, line in enumerate(chart.lines)),
        ]
    )


def _percentiles(chart: Chart) -> str:
    """Each nine takes as much room as the one before: the worst cases are what is looked for."""
    x_scale = _nines(LEFT, WIDTH - RIGHT)
    ys = [y for line in chart.lines for _, y in line.points if y > 0]
    top = _top(chart)
    if ys and top / min(ys) > WIDE_RANGE:
        low = 10 ** math.floor(math.log10(min(ys)))
        exponents = range(round(math.log10(low)), math.ceil(math.log10(top)) + 1)
        y_ticks = [10.0**exponent for exponent in exponents]
        y_scale = _logarithmic(low, y_ticks[-1], HEIGHT - BOTTOM, TOP)
    else:
        y_ticks = nice_ticks(0.0, top)
        y_scale = _linear(0.0, y_ticks[-1], HEIGHT - BOTTOM, TOP)
    x_labels = [(x_scale(p), "min" if p == 0 else f"p{p:g}") for p in _PERCENTILES] + [(x_scale(100.0), "max")]
    return "".join(
        [
            _axes(chart, x_labels, [(y_scale(y), number(y)) for y in y_ticks]),
            _target(chart, y_scale),
            *(_path(chart, line, place, x_scale, y_scale) for place, line in enumerate(chart.lines)),
        ]
    )


def _bars(chart: Chart) -> str:
    points = chart.lines[0].points
    y_ticks = nice_ticks(0.0, _top(chart))
    y_scale = _linear(0.0, y_ticks[-1], HEIGHT - BOTTOM, TOP)
    slot = (WIDTH - LEFT - RIGHT) / len(points)
    width = min(90.0, slot * 0.6)
    centers = [LEFT + slot * (place + 0.5) for place in range(len(points))]
    parts = [
        _axes(
            chart,
            [(center, number(x)) for center, (x, _) in zip(centers, points, strict=True)],
            [(y_scale(y), number(y)) for y in y_ticks],
        )
    ]
    for center, (_, value) in zip(centers, points, strict=True):
        top = y_scale(value)
        parts.append(
            f'<rect class="f0" x="{center - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{max(0.0, HEIGHT - BOTTOM - top):.1f}" rx="3"/>'
            f'<text class="value" x="{center:.1f}" y="{top + 16:.1f}">{number(value)}</text>'
        )
    return "".join([*parts, _target(chart, y_scale)])


# --- Parts ---------------------------------------------------------------------------------------


def _axes(chart: Chart, x_labels: Sequence[tuple[float, str]], y_labels: Sequence[tuple[float, str]]) -> str:
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        for y, label in y_labels
    ]
    parts += [
        f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>'
        for x, label in x_labels
    ]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts += [
        _text("axis", f'x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle"', chart.x),
        _text("axis", f'transform="translate(13 {middle}) rotate(-90)" text-anchor="middle"', chart.y),
    ]
    return "".join(parts)


def _path(chart: Chart, line: Line, place: int, x_scale: Scale, y_scale: Scale) -> str:
    if not line.points:
        return ""
    dots = [(x_scale(x), y_scale(y), x, y) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in dots)
    parts = [f'<polyline class="s{place % 4}" points="{path}"/>']
    if len(dots) <= DOTS:
        parts += [
            f'<circle class="f{place % 4}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(line.name)}: '
            f"{number(value)} {escape(chart.y)} at {at:g} {escape(chart.x)}</title></circle>"
            for x, y, at, value in dots
        ]
    return "".join(parts)


def _target(chart: Chart, y_scale: Scale) -> str:
    if chart.target is None:
        return ""
    y = y_scale(chart.target)
    return f'<line class="target" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>' + _text(
        "target", f'x="{WIDTH - RIGHT}" y="{y - 5:.1f}" text-anchor="end"', f"target {number(chart.target)}"
    )


def _text(kind: str, place: str, text: str) -> str:
    return f'<text class="{kind}" {place}>{escape(text)}</text>'


def _top(chart: Chart) -> float:
    values = [y for line in chart.lines for _, y in line.points]
    return max([*values, chart.target or 0.0]) or 1.0


# --- Scales --------------------------------------------------------------------------------------


def nice_ticks(low: float, high: float) -> list[float]:
    """Give about five round numbers from `low` to `high` or just above."""
    span = max(high - low, 1e-9)
    rough = span / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [low + step * place for place in range(math.ceil(span / step - 1e-6) + 1)]


def _linear(low: float, high: float, first: float, last: float) -> Scale:
    return lambda value: first + (value - low) / (high - low or 1.0) * (last - first)


def _logarithmic(low: float, high: float, first: float, last: float) -> Scale:
    linear = _linear(math.log10(low), math.log10(high), first, last)
    return lambda value: linear(math.log10(max(value, low)))


def _nines(first: float, last: float) -> Scale:
    worst = 4.6  # where "max" stands: beyond 99.99 %
    linear = _linear(0.0, worst, first, last)
    return lambda percent: linear(worst if percent >= 100 else -math.log10(1 - percent / 100))  # noqa: PLR2004 - percent
