"""The ways to Redis break, lie, are slow and lead elsewhere, while Redis itself is well."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.scenarios.redis_watch import (
    CHECKED_SECONDS,
    NOTICED_SECONDS,
    is_back,
    is_noticed,
    longest_unnoticed,
    typical_delivery,
    until_redis,
    watched,
)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


@pytest.mark.scenario(
    "F5",
    "Subscriptions are killed every 2 s for 30 s",
    "each renewal is followed by one catch-up; nothing is late by more than a moment",
    gate=True,
)
async def test_subscriptions_are_killed_again_and_again(scene):
    """Protocol 5.4, 8.1: the client library renews a subscription silently; what came in between is gone."""
    cluster = await scene.start()
    kills = int(scene.scale.pick(gate=5, whole=15))
    killed = 0

    async def faults(_run) -> None:
        nonlocal killed
        await asyncio.sleep(1)
        with scene.fault("subscriptions are killed"):
            for _ in range(kills):
                count = await cluster.valkey.command("CLIENT", "KILL", "TYPE", "pubsub")
                assert isinstance(count, int)
                killed += count
                await asyncio.sleep(scene.scale.pick(gate=0.4, whole=2))
        await is_back(scene, cluster)

    played = await scene.play(faults, tail_seconds=0.5)
    assert killed >= kills
    told = [event for event in played.history.events if event.name == "resync" and event.scope == "changes"]
    assert 0 < len(told) <= len(played.history.devices) * kills, "a catch-up each, and no more"
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)


@pytest.mark.scenario(
    "F6", "Publishing connections are killed every second for 20 s", "what was not answered is published once more"
)
async def test_publishing_connections_are_killed_again_and_again(scene):
    """Protocol 5.4: twice lost is found by a head check."""
    cluster = await scene.start()
    killed = 0

    async def faults(_run) -> None:
        nonlocal killed
        await asyncio.sleep(2)
        with scene.fault("publishing connections are killed"):
            for _ in range(int(scene.scale.pick(gate=5, whole=20))):
                count = await cluster.valkey.command("CLIENT", "KILL", "TYPE", "normal")
                assert isinstance(count, int)
                killed += count
                await asyncio.sleep(1)
            await is_back(scene, cluster)

    played = await scene.play(faults)
    assert killed > 0
    slowest = played.slowest_delivery()
    assert slowest < scene.scale.heartbeat_seconds + CHECKED_SECONDS


@pytest.mark.scenario(
    "F7",
    "Redis is cut off: bytes vanish, nothing is reset",
    "noticed within 6 s; delivery by head checks; heals itself",
)
async def test_redis_is_cut_off(scene):
    """Protocol 8.1: connections look open for ever."""
    cluster = await scene.start(link_redis=True)
    slowest_answer = 0.0

    async def faults(_run) -> None:
        nonlocal slowest_answer
        await asyncio.sleep(2)
        with scene.fault("Redis is cut off"):
            for link in cluster.redis_links:
                link.swallow()
            await is_noticed(scene, cluster)
            async with watched(cluster) as watch:
                await asyncio.sleep(scene.scale.pick(gate=3, whole=10))
            for link in cluster.redis_links:
                link.heal()
        slowest_answer = watch.slowest_answer_seconds
        await is_back(scene, cluster)

    played = await scene.play(faults)
    assert slowest_answer < 5, "the process stood still"
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)


@pytest.mark.scenario(
    "F8", "One way only: publishing works, subscriptions hear nothing", "noticed within 6 s, as a PING would not"
)
async def test_subscriptions_hear_nothing_while_publishing_works(scene):
    """Protocol 8.1: only a probe that goes the way of the messages tells."""
    cluster = await scene.start(link_redis=True)

    async def faults(_run) -> None:
        await asyncio.sleep(2)
        with scene.fault("subscriptions hear nothing"):
            for link in cluster.redis_links:
                link.only = lambda pair: pair.is_subscriber
                link.freeze("down")
            await is_noticed(scene, cluster)
            await asyncio.sleep(scene.scale.pick(gate=3, whole=10))
            for link in cluster.redis_links:
                link.heal()
        await is_back(scene, cluster)

    played = await scene.play(faults)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)


@pytest.mark.scenario(
    "F9", "Redis is far away: 200 ms each way", "messages take two ways longer; nobody takes it for dead"
)
async def test_redis_is_far_away(scene):
    """Protocol 5.4, 8.1: head checks find what is still on its way, and nothing is sent twice."""
    cluster = await scene.start(link_redis=True)
    seconds = 0.2
    far_from = far_until = 0.0

    async def faults(_run) -> None:
        nonlocal far_from, far_until
        await asyncio.sleep(2)
        with scene.fault("Redis is far away"):
            for link in cluster.redis_links:
                link.delay_seconds = seconds
            far_from = time.monotonic()
            await asyncio.sleep(scene.scale.pick(gate=2, whole=10))
            await is_back(scene, cluster)
            far_until = time.monotonic()
            for link in cluster.redis_links:  # and a connection can be made over that distance, too
                link.cut()
            await until_redis(cluster, "down", NOTICED_SECONDS)
            await is_back(scene, cluster)
            for link in cluster.redis_links:
                link.heal()
        await is_back(scene, cluster)

    played = await scene.play(faults)
    typical = typical_delivery(played, far_from, far_until)
    assert typical > 2 * seconds * 0.9, "it was not far away"
    scene.notes["median_delivery_seconds_far_away"] = round(typical, 2)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)
