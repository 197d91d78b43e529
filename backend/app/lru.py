"""A bounded memory of things that were checked a moment ago."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ExpiringLru(Generic[K, V]):
    """At most `limit` values, each for at most `seconds`; the one not asked for the longest goes first."""

    def __init__(self, limit: int, *, seconds: float) -> None:
        """Start empty."""
        self._limit = limit
        self._seconds = seconds
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Give the value of `key`, or None when it is not there or too old."""
        found = self._values.get(key)
        if found is None:
            return None
        ends_at, value = found
        if ends_at <= time.monotonic():
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V, *, seconds: float | None = None) -> None:
        """Remember `value`; `seconds` can only shorten how long."""
        lifetime = self._seconds if seconds is None else min(seconds, self._seconds)
        self._values[key] = (time.monotonic() + lifetime, value)
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)

    def remove(self, key: K) -> None:
        """Forget a value, if it is there."""
        self._values.pop(key, None)

    def __len__(self) -> int:
        return len(self._values)
