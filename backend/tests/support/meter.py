"""How long the machine lets everybody wait: measured on the test's own loop, which plays clients beside the servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

LOOK_SECONDS = 0.02
STALL_SECONDS = 0.05  # below that it is the load's own work


@dataclass(slots=True)
class Meter:
    """Stalls as (from, seconds)."""

    stalls: list[tuple[float, float]] = field(default_factory=list)
    _look_began_at: float | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look until the end of the block."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])
            self._end_look()

    def longest(self, since: float = 0, until: float = float("inf")) -> float:
        """The longest stall that touches this time, in seconds: what no server can be blamed for."""
        self._end_look()  # one may be under way: who asks may have been called before the look goes on
        return max((seconds for at, seconds in self.stalls if at <= until and at + seconds >= since), default=0.0)

    async def _look(self) -> None:
        while True:
            self._look_began_at = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)
            self._end_look()

    def _end_look(self) -> None:
        if self._look_began_at is None:
            return
        late_seconds = time.monotonic() - self._look_began_at - LOOK_SECONDS
        if late_seconds > STALL_SECONDS:
            self.stalls.append((self._look_began_at, late_seconds))
        self._look_began_at = None
