"""Redis goes, comes back, lies and is silent: messages are late at most."""

from __future__ import annotations

import asyncio
import time

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

NOTICED_SECONDS = 6.0  # until the loss of Redis is noticed
DEGRADED_SECONDS = 2.5  # from commit to event then: a check a second, and the grace


@pytest.mark.scenario(
    "F1", "Redis is killed and comes back after 10 s", "sends go on; late by less than a heartbeat", gate=True
)
async def test_redis_is_killed_and_comes_back(scene):
    """Protocol 5.4, 8.1."""
    cluster = await scene.start()

    async def faults(_run) -> None:
        await asyncio.sleep(2)
        with scene.fault("Redis is gone"):
            cluster.valkey.kill()
            await asyncio.sleep(scene.scale.pick(gate=4, whole=10))
            await cluster.valkey.start()
        await asyncio.sleep(scene.scale.pick(gate=3, whole=6))

    played = await scene.play(faults)
    assert played.answer_p99_seconds < 0.5
    assert played.slowest_delivery() < max(NOTICED_SECONDS, scene.scale.heartbeat_seconds + 1)
    (fault,) = played.history.faults
    assert played.slowest_delivery(begun_after=fault[1] + 5, begun_before=time.monotonic()) < 1, "not live again"
