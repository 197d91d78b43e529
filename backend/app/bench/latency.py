"""Times, and their percentiles."""

from __future__ import annotations

from array import array
from collections.abc import Iterable


class Latencies:
    """Times in seconds, all of them kept: percentiles are exact."""

    __slots__ = ("_is_sorted", "values")

    def __init__(self, values: Iterable[float] = ()) -> None:
        """Begin with `values`."""
        self.values = array("d", values)
        self._is_sorted = False

    def add(self, seconds: float) -> None:
        """Add one."""
        self.values.append(seconds)
        self._is_sorted = False

    def percentile(self, percent: float) -> float:
        """Give the time that `percent` of all stay within; 0 when there is none."""
        if not self.values:
            return 0.0
        if not self._is_sorted:
            self.values = array("d", sorted(self.values))
            self._is_sorted = True
        return self.values[min(len(self.values) - 1, int(len(self.values) * percent / 100))]

    def curve(self) -> list[tuple[float, float]]:
        """Give (percent, milliseconds) for a chart: finer towards the worst."""
        percents = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 100.0)
        return [(percent, self.percentile(percent) * 1000) for percent in percents] if self.values else []
