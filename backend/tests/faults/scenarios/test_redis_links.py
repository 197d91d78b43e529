"""The ways to Redis break, lie, are slow and lead elsewhere, while Redis itself is well."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.vitals import count
from tests.faults.scenarios.calm import (
    CHANGES,
    SLACK_SECONDS,
    TIMES_CALM,
    Span,
    delivery_p99,
    no_send_failed,
    no_send_waited,
    nothing_came_late,
    typical_delivery,
)
from tests.faults.scenarios.redis_watch import (
    NOTICED_SECONDS,
    RECOVERED_SECONDS,
    is_back,
    is_noticed,
    is_quiet,
    longest_unnoticed,
    until_redis,
    untouched,
    watched,
    without_redis,
)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

INBOX_INDEX, COUNTED_SECONDS = "inbox_pkey", 5.0


@pytest.mark.scenario(
    "F5",
    "Subscriptions are killed every 2 s for a minute",
    "all catch up once each time, nothing is late; told to ask for changes with the next heartbeat, or at once",
    gate=True,
    seconds=85,
    pictured=True,
)
async def test_subscriptions_are_killed_again_and_again(scene):
    """Protocol 5.4, 8.1: the client library renews a subscription silently; what came in between is gone."""
    cluster = await scene.start()
    kills = int(scene.scale.pick(gate=5, whole=30))
    calm, killing = Span(), Span()
    killed = 0

    async def faults(run) -> None:
        nonlocal killed
        await is_quiet(run)
        with calm:
            await asyncio.sleep(scene.scale.pick(gate=1, whole=2))
        once_each = kills * len(run.devices)
        read = await inbox_reads(cluster)
        repaired = await count(cluster, "gaps_repaired")
        with scene.fault("subscriptions are killed"), killing:
            for _ in range(kills):
                await until_redis(cluster, "up", RECOVERED_SECONDS)
                killed += await kill(cluster, "pubsub")
                await asyncio.sleep(scene.scale.pick(gate=0.4, whole=2))
        await is_back(scene, cluster)
        read = await inbox_reads(cluster, at_least=read + once_each) - read
        repairs = await count(cluster, "gaps_repaired") - repaired
        scene.notes["catch_ups_of_a_stream_per_kill"] = round(read / once_each, 3)
        # More than once where a renewal took so long that a head check came first.
        assert 0.9 * once_each <= read <= 1.5 * once_each + repairs

    before = await count(cluster, "redis_reconnects")
    played = await scene.play(faults, tail_seconds=0.5, **CHANGES)
    assert killed >= kills * len(cluster.servers)
    assert await count(cluster, "redis_reconnects") - before >= killed
    told = Counter(
        event.device for event in played.history.events if event.name == "resync" and event.scope == "changes"
    )
    scene.notes["told_to_ask"] = told.total()
    beats = int((killing.until - killing.since) / scene.scale.heartbeat_seconds)
    assert told.keys() == played.history.devices.keys(), "not all have caught up"
    assert max(1, beats - 1) <= min(told.values()) <= max(told.values()) <= kills
    no_send_failed(played)
    no_send_waited(scene, played, calm, killing)
    nothing_came_late(scene, played, calm, killing)


async def inbox_reads(cluster: Cluster, *, at_least: float = 0) -> int:
    """How often an inbox was read. PostgreSQL adds up what a connection did a second later: waits for `at_least`."""
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = $1"
    connection = await cluster.postgres.connect()
    try:
        deadline = time.monotonic() + COUNTED_SECONDS
        while True:
            reads = await connection.fetchval(scans, INBOX_INDEX)
            if reads >= at_least or time.monotonic() > deadline:
                return int(reads)
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


@pytest.mark.scenario(
    "F6",
    "Publishing connections are killed every second for 20 s; Redis is 50 ms away",
    "what was not answered is published once more: nothing is late, and nothing is left to head checks",
    seconds=34,
)
async def test_publishing_connections_are_killed_again_and_again(scene):
    """Protocol 5.4. At that distance some hundred frames are on their way at any time."""
    cluster = await scene.start(link_redis=True)
    kills = int(scene.scale.pick(gate=5, whole=20))
    calm, killing = Span(), Span()
    killed = 0

    async def faults(_run) -> None:
        nonlocal killed
        for link in cluster.redis_links:
            link.delay_seconds = 0.05
        await asyncio.sleep(1)
        with calm:
            await asyncio.sleep(2)
        with scene.fault("publishing connections are killed"), killing:
            for _ in range(kills):
                await until_publishing(cluster)
                killed += await kill(cluster, "normal")
                await asyncio.sleep(1)
            await is_back(scene, cluster)

    before = {name: await count(cluster, name) for name in ("publishes", "publishes_lost")}
    played = await scene.play(faults)
    published, lost = [await count(cluster, name) - was for name, was in before.items()]
    scene.notes["frames_published"], scene.notes["frames_lost"] = published, lost
    assert killed >= kills * len(cluster.servers)
    assert lost <= published / 100
    no_send_failed(played)
    nothing_came_late(scene, played, calm, killing)


async def kill(cluster: Cluster, kind: str) -> int:
    """End all connections to Redis of this kind; gives how many."""
    killed = await cluster.valkey.command("CLIENT", "KILL", "TYPE", kind)
    assert isinstance(killed, int)
    return killed


async def until_publishing(cluster: Cluster) -> None:
    """Wait until every process has its connection to publish on."""
    async with asyncio.timeout(RECOVERED_SECONDS):
        while True:
            clients = str(await cluster.valkey.command("CLIENT", "LIST", "TYPE", "normal"))
            if clients.count("gapless-publisher") >= len(cluster.servers):
                return
            await asyncio.sleep(0.05)


@pytest.mark.scenario(
    "F7",
    "Redis is cut off: bytes vanish, nothing is reset",
    "noticed within 6 s, then all comes within about two; no send fails or waits; no process stands still",
    seconds=26,
)
async def test_redis_is_cut_off(scene):
    """Protocol 8.1: connections look open for ever."""
    cluster = await scene.start(link_redis=True)
    calm, away = Span(), Span()
    slowest_answer = 0.0

    async def faults(run) -> None:
        nonlocal slowest_answer
        with calm:
            await asyncio.sleep(2)
        with scene.fault("Redis is cut off"), away:
            for link in cluster.redis_links:
                link.swallow()
            await is_noticed(scene, cluster, away)
            async with watched(run, cluster) as watch:
                await asyncio.sleep(scene.scale.pick(gate=3, whole=10))
            for link in cluster.redis_links:
                link.heal()
        slowest_answer = watch.slowest_answer_seconds
        await is_back(scene, cluster)

    played = await scene.play(faults)
    assert slowest_answer < 5, "the process stood still"
    without_redis(scene, played, calm, away)


@pytest.mark.scenario(
    "F8",
    "One way only: publishing works, subscriptions hear nothing",
    "noticed within 6 s, as a PING would not; then all comes within about two",
    seconds=32,
    pictured=True,
)
async def test_subscriptions_hear_nothing_while_publishing_works(scene):
    """Protocol 8.1: only a probe that goes the way of the messages tells."""
    cluster = await scene.start(link_redis=True)
    calm, away = Span(), Span()

    async def faults(run) -> None:
        await is_quiet(run)
        with calm:
            await asyncio.sleep(2)
        with scene.fault("subscriptions hear nothing"), away:
            for link in cluster.redis_links:
                link.only = lambda pair: pair.is_subscriber
                link.freeze("down")
            await is_noticed(scene, cluster, away)
            async with watched(run, cluster):
                await asyncio.sleep(scene.scale.pick(gate=3, whole=10))
            for link in cluster.redis_links:
                link.heal()
        await is_back(scene, cluster)

    lost = await count(cluster, "publishes_lost")
    played = await scene.play(faults, **CHANGES)
    assert await count(cluster, "publishes_lost") == lost, "publishing did not work"
    without_redis(scene, played, calm, away)


@pytest.mark.scenario(
    "F9",
    "Redis is far away: 200 ms each way",
    "messages take two ways longer; nobody takes it for dead; a connection can be made at that distance",
    seconds=28,
)
async def test_redis_is_far_away(scene):
    """Protocol 5.4, 8.1: head checks find what is still on its way, and nothing is sent twice."""
    cluster = await scene.start(link_redis=True)
    seconds = 0.2
    calm, far = Span(), Span()

    async def faults(_run) -> None:
        with calm:
            await asyncio.sleep(2)
        with scene.fault("Redis is far away"):
            for link in cluster.redis_links:
                link.delay_seconds = seconds
            async with untouched(cluster):
                with far:
                    await asyncio.sleep(scene.scale.pick(gate=2, whole=10))
                    await is_back(scene, cluster)
            for link in cluster.redis_links:
                link.cut()
            await until_redis(cluster, "down", NOTICED_SECONDS)
            await is_back(scene, cluster)
            for link in cluster.redis_links:
                link.heal()
        await is_back(scene, cluster)

    played = await scene.play(faults)
    typical = typical_delivery(played, far.settled.since, far.settled.until)
    scene.notes["median_delivery_seconds_far_away"] = round(typical, 2)
    assert typical > 2 * seconds * 0.9, "it was not far away"
    # What was still on its way when the links were cut is not of that time.
    assert (
        delivery_p99(played, far.settled)
        <= 2 * seconds + TIMES_CALM * delivery_p99(played, calm.settled) + SLACK_SECONDS
    )
    no_send_failed(played)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)
