"""Redis goes, comes back, stands still, sleeps, and was never there: messages are late at most."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.kit.cluster import ValkeyNode
from tests.faults.scenarios.redis_watch import is_back, is_noticed, longest_unnoticed, until_redis, watched

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

# Requests and head checks come and go; what waited for a dead Redis would grow by hundreds in a second.
ROOM_FOR_TASKS = 600


@pytest.mark.scenario(
    "F1", "Redis is killed and comes back after 10 s", "sends go on; late by less than a heartbeat", gate=True
)
async def test_redis_is_killed_and_comes_back(scene):
    """Protocol 5.4, 8.1."""
    cluster = await scene.start()

    async def faults(_run) -> None:
        await asyncio.sleep(scene.scale.pick(gate=1, whole=3))
        with scene.fault("Redis is gone"):
            cluster.valkey.kill()
            await is_noticed(scene, cluster)
            await asyncio.sleep(scene.scale.pick(gate=1.5, whole=10))
            await cluster.valkey.start()
        await is_back(scene, cluster)

    played = await scene.play(faults, tail_seconds=0.5)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)


@pytest.mark.scenario("F2", "Redis is not there when processes start", "they start and serve; join it when it is there")
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

    async def faults(_run) -> None:
        with scene.fault("Redis is not there yet"):
            await asyncio.sleep(scene.scale.pick(gate=3, whole=10))
            await cluster.valkey.start()
        await is_back(scene, cluster)

    played = await scene.play(faults)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)


@pytest.mark.scenario(
    "F3",
    "Redis stands still for 30 s (SIGSTOP)",
    "noticed within 6 s; no send waits for it; nothing piles up",
    gate=True,
)
async def test_redis_stands_still(scene):
    """Protocol 8.1: it takes connections and bytes, and never answers."""
    cluster = await scene.start()
    tasks: list[int] = []

    async def faults(_run) -> None:
        await asyncio.sleep(scene.scale.pick(gate=1, whole=3))
        with scene.fault("Redis stands still"):
            cluster.valkey.freeze()
            try:
                await is_noticed(scene, cluster)
                async with watched(cluster) as watch:
                    await asyncio.sleep(scene.scale.pick(gate=1.5, whole=27))
            finally:
                cluster.valkey.thaw()
        tasks.extend(watch.tasks)
        await is_back(scene, cluster)

    played = await scene.play(faults, tail_seconds=0.5)
    assert max(tasks) < ROOM_FOR_TASKS
    scene.notes["most_tasks"] = max(tasks)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)


@pytest.mark.scenario(
    "F4", "Redis sleeps: CLIENT PAUSE 8 s, DEBUG SLEEP 8 s", "noticed within 6 s; no send waits for it"
)
async def test_redis_sleeps(scene):
    """Protocol 8.1."""
    scene.cluster.valkey = ValkeyNode(scene.cluster.folder / "valkey", extra_args=("--enable-debug-command", "local"))
    cluster = await scene.start()
    seconds = 8

    async def faults(_run) -> None:
        await asyncio.sleep(1)
        with scene.fault("CLIENT PAUSE"):
            await cluster.valkey.command("CLIENT", "PAUSE", str(seconds * 1000), "ALL")
            await is_noticed(scene, cluster)
            await until_redis(cluster, "up", 3 * seconds)
        await asyncio.sleep(2)
        with scene.fault("DEBUG SLEEP"):
            sleep = cluster.valkey.command("DEBUG", "SLEEP", str(seconds), answer_seconds=2 * seconds)
            async with asyncio.TaskGroup() as group:
                group.create_task(sleep)
                await is_noticed(scene, cluster)
        await is_back(scene, cluster)

    played = await scene.play(faults)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)
