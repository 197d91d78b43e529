"""Redis goes, comes back, stands still, sleeps, and was never there: messages are late at most."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.kit.nodes import ValkeyNode
from tests.faults.scenarios.calm import CHANGES, Span
from tests.faults.scenarios.redis_watch import is_back, is_noticed, is_quiet, until_redis, watched, without_redis

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

# Requests and head checks come and go; what waited for a dead Redis would grow by hundreds in a second.
ROOM_FOR_TASKS = 600


@pytest.mark.scenario(
    "F1",
    "Redis is killed and comes back after 10 s",
    "no send fails or waits; once that is noticed, all comes within about two seconds",
    gate=True,
    seconds=30,
    pictured=True,
)
async def test_redis_is_killed_and_comes_back(scene):
    """Protocol 5.4, 8.1."""
    cluster = await scene.start()
    calm, away = Span(), Span()

    async def faults(run) -> None:
        await is_quiet(run)
        with calm:
            await asyncio.sleep(scene.scale.pick(gate=1, whole=3))
        with scene.fault("Redis is gone"), away:
            cluster.valkey.kill()
            await is_noticed(scene, cluster, away)
            async with watched(run, cluster):
                await asyncio.sleep(scene.scale.pick(gate=1.5, whole=10))
            await cluster.valkey.start()
        await is_back(scene, cluster)

    played = await scene.play(faults, tail_seconds=0.5, **CHANGES)
    without_redis(scene, played, calm, away)


@pytest.mark.scenario(
    "F2",
    "Redis is not there when processes start",
    "they start, say so, and deliver within about two seconds; join it when it is there",
    seconds=22,
)
async def test_processes_start_without_redis(scene):
    """Protocol 8.1."""
    cluster = await scene.start(processes=0)
    cluster.valkey.kill()
    for _ in range(2):
        await cluster.add_server()
    for server in cluster.servers:
        assert (await server.call("GET", "/health"))[0] == 200
        status, told = await server.call("GET", "/ready")
        assert (status, told["status"], told["redis"]) == (200, "degraded", "down")
    calm, away = Span(), Span(time.monotonic())

    async def faults(run) -> None:
        with scene.fault("Redis is not there yet"), away:
            away.noticed_at = time.monotonic()
            async with watched(run, cluster):
                await asyncio.sleep(scene.scale.pick(gate=3, whole=10))
            await cluster.valkey.start()
        await is_back(scene, cluster)
        with calm:
            await asyncio.sleep(2)

    played = await scene.play(faults, tail_seconds=0.5)
    without_redis(scene, played, calm, away)


@pytest.mark.scenario(
    "F3",
    "Redis stands still for 30 s (SIGSTOP)",
    "noticed within 6 s, then all comes within about two; no send fails or waits; nothing piles up",
    gate=True,
    seconds=42,
    pictured=True,
)
async def test_redis_stands_still(scene):
    """Protocol 8.1: it takes connections and bytes, and never answers."""
    # Longer than the gate's: if only heartbeats checked, what is sent first would now be too late there, too.
    cluster = await scene.start(heartbeat_seconds=10)
    calm, away = Span(), Span()
    tasks: list[int] = []

    async def faults(run) -> None:
        with calm:
            await asyncio.sleep(scene.scale.pick(gate=1, whole=3))
        with scene.fault("Redis stands still"), away:
            cluster.valkey.freeze()
            try:
                await is_noticed(scene, cluster, away)
                async with watched(run, cluster) as watch:
                    await asyncio.sleep(scene.scale.pick(gate=4, whole=27))
            finally:
                cluster.valkey.thaw()
        tasks.extend(watch.tasks)
        await is_back(scene, cluster)

    played = await scene.play(faults, tail_seconds=0.5)
    without_redis(scene, played, calm, away)
    scene.notes["most_tasks"] = max(tasks)
    assert max(tasks) < ROOM_FOR_TASKS


@pytest.mark.scenario(
    "F4",
    "Redis sleeps: CLIENT PAUSE 8 s, DEBUG SLEEP 8 s",
    "noticed within 6 s, then all comes within about two; no send fails or waits; nothing piles up",
    seconds=32,
)
async def test_redis_sleeps(scene):
    """Protocol 8.1."""
    scene.cluster.valkey = ValkeyNode(scene.cluster.folder / "valkey", extra_args=("--enable-debug-command", "local"))
    cluster = await scene.start()
    seconds = 8
    calm, paused, asleep = Span(), Span(), Span()
    tasks: list[int] = []

    async def is_away(run, away: Span) -> None:
        await is_noticed(scene, cluster, away)
        async with watched(run, cluster) as watch:
            await asyncio.sleep(away.since + seconds - 1 - time.monotonic())
        tasks.extend(watch.tasks)

    async def faults(run) -> None:
        with calm:
            await asyncio.sleep(2)
        with scene.fault("CLIENT PAUSE"), paused:
            await cluster.valkey.command("CLIENT", "PAUSE", str(seconds * 1000), "ALL")
            await is_away(run, paused)
            await until_redis(cluster, "up", 3 * seconds)
        await asyncio.sleep(2)
        with scene.fault("DEBUG SLEEP"), asleep:
            sleep = cluster.valkey.command("DEBUG", "SLEEP", str(seconds), answer_seconds=2 * seconds)
            async with asyncio.TaskGroup() as group:
                group.create_task(sleep)
                await is_away(run, asleep)
        await is_back(scene, cluster)

    played = await scene.play(faults)
    without_redis(scene, played, calm, paused, asleep)
    scene.notes["most_tasks"] = max(tasks)
    assert max(tasks) < ROOM_FOR_TASKS
