"""An event loop that stands still is told of."""

from __future__ import annotations

import asyncio
import time

from structlog.testing import capture_logs

from app.observability import LOOP_BLOCKED_SECONDS, LOOP_TICK_SECONDS, metrics_text, watch_event_loop


async def test_a_loop_that_stood_still_is_one_line_and_a_number():
    before = late_ticks()
    with capture_logs() as lines:
        watching = asyncio.create_task(watch_event_loop())
        await asyncio.sleep(3 * LOOP_TICK_SECONDS)
        assert lines == []  # on time
        time.sleep(LOOP_BLOCKED_SECONDS + 2 * LOOP_TICK_SECONDS)
        await asyncio.sleep(LOOP_TICK_SECONDS)
        watching.cancel()
    assert [line["event"] for line in lines] == ["event_loop_blocked"]
    assert lines[0]["seconds"] > LOOP_BLOCKED_SECONDS
    assert late_ticks() == before + 1


def late_ticks() -> int:
    """How many ticks came more than a second late."""
    numbers = dict(line.rsplit(" ", 1) for line in metrics_text().decode().splitlines() if not line.startswith("#"))
    name = "gapless_event_loop_lag_seconds"
    return int(float(numbers[f"{name}_count"]) - float(numbers[f'{name}_bucket{{le="1.0"}}']))
