"""What a run has found, as values: measured, checked, and how much of the machine it took."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

CLIENT_IS_BUSY: Final = 0.9  # of its core: past it a number may be the client's and not the server's
SERVER_IS_BUSY: Final = 0.95  # of its core
OTHERS_DISTURB: Final = 0.1  # of a core: what is not part of the run


@dataclass(slots=True)
class Metric:
    """One number, measured once per repeat."""

    name: str
    unit: str
    values: list[float]
    target: float | None = None
    better: Literal["more", "less"] = "more"

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values) if self.values else 0.0

    @property
    def meets_target(self) -> bool | None:
        """Whether the median does; None where there is no target, or nothing was measured."""
        if self.target is None or not self.values:
            return None
        return self.median >= self.target if self.better == "more" else self.median <= self.target

    def document(self) -> dict[str, Any]:
        """Give it for JSON."""
        return {
            **asdict(self),
            "median": self.median,
            "min": min(self.values, default=0.0),
            "max": max(self.values, default=0.0),
            "meets_target": self.meets_target,
        }


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or one row of bars, of a chart."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of the report. `kind`: "line"; "percentiles", a line over percentiles; "bars", x is the repeat."""

    title: str
    kind: Literal["line", "percentiles", "bars"]
    x: str
    y: str
    lines: Sequence[Line]
    target: float | None = None


@dataclass(slots=True)
class ProfileResult:
    """What one profile has found."""

    name: str
    title: str
    about: str  # what was done, for a reader of the report
    metrics: list[Metric] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)  # must all be zero
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)  # share of one core per repeat, by name
    checked: int = 0  # events whose order was verified
    disturbance: str | None = None  # what others took of the cores
    skipped: str | None = None  # why it did not run
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether everything that was counted is right. Times never fail a run."""
        return not self.errors and not any(self.faults.values())

    def add(self, name: str, unit: str, value: float, *, target: float | None = None, less: bool = False) -> None:
        """Add one repeat's value of a metric."""
        for metric in self.metrics:
            if metric.name == name:
                metric.values.append(value)
                return
        self.metrics.append(Metric(name, unit, [value], target, "less" if less else "more"))

    def add_cpu(self, shares: Mapping[str, float]) -> None:
        """Add one repeat's shares of a core."""
        for name, share in shares.items():
            self.cpu.setdefault(name, []).append(share)

    def add_faults(self, faults: Mapping[str, int]) -> None:
        """Add up what must be zero."""
        for name, count in faults.items():
            self.faults[name] = self.faults.get(name, 0) + count

    def judge_load(self, load_cores: int) -> None:
        """Say so where the load client may have been the bottleneck, or somebody else was at work."""
        worst = {name: max(shares) for name, shares in self.cpu.items()}
        others = {name: worst.pop(name) for name in list(worst) if name.startswith("others ")}
        server = min(self.cpu.get("server", [0.0]))
        worst = {name: share for name, share in worst.items() if not name.startswith("server")}
        if server > SERVER_IS_BUSY:
            pass  # its own limit, however eager the client is: with more to read, that reads more at once
        elif worst.get("load client", 0.0) > CLIENT_IS_BUSY:
            self.warnings.append(f"The load client was the bottleneck: it used {worst['load client']:.0%} of a core.")
        elif load_cores and sum(worst.values()) > CLIENT_IS_BUSY * load_cores:
            used = ", ".join(f"{name} {share:.0%}" for name, share in worst.items())
            self.warnings.append(f"The load's own core was full ({used}): with more cores the server may do more.")
        found = [
            f"{share:.0%} of a core {name.removeprefix('others ')}"
            for name, share in others.items()
            if share > OTHERS_DISTURB
        ]
        if found:
            self.disturbance = f"Others used {' and '.join(found)}: what was measured is worse by about that."

    def document(self) -> dict[str, Any]:
        """Give it for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "about": self.about,
            "ok": self.is_right,
            "skipped": self.skipped,
            "metrics": [metric.document() for metric in self.metrics],
            "faults": self.faults,
            "errors": self.errors,
            "warnings": self.warnings,
            "disturbance": self.disturbance,
            "checked_events": self.checked,
            "cpu": {name: statistics.median(shares) for name, shares in self.cpu.items()},
            "seconds": round(self.seconds, 2),
            "charts": [asdict(chart) for chart in self.charts],
        }


def rate(timeline: Sequence[tuple[float, float]], *, every_seconds: float) -> list[tuple[float, float]]:
    """Turn (time, total so far) into (seconds since the first, growth a second), one point per `every_seconds`."""
    points: list[tuple[float, float]] = []
    if not timeline:
        return points
    start = last_time = timeline[0][0]
    last_total = timeline[0][1]
    for moment, total in timeline:
        if moment - last_time >= every_seconds:
            points.append((moment - start, (total - last_total) / (moment - last_time)))
            last_time, last_total = moment, total
    return points
