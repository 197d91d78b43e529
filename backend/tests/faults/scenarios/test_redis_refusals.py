"""Redis refuses, forgets, is full, and closes connections that do not read."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.vitals import count, counted
from tests.faults.scenarios.calm import LATE_SECONDS, Span, no_send_failed, no_send_waited, nothing_came_late
from tests.faults.scenarios.redis_watch import is_back, is_noticed, until_redis, untouched, watched, without_redis

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

# Of one process in about 7 s: two connections, whose pauses grow to 1 s and 2 s, less a half of chance.
MOST_ATTEMPTS = 40


@asynccontextmanager
async def operator(cluster: Cluster) -> AsyncIterator[Redis]:
    """A connection that was there before Redis began to refuse."""
    async with Redis(port=cluster.valkey.port, single_connection_client=True, socket_timeout=5) as redis:
        await redis.ping()
        yield redis


async def end_all_others(redis: Redis) -> None:
    for kind in ("pubsub", "normal"):
        await redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def warnings(cluster: Cluster) -> int:
    """Lines of all logs that say something about Redis."""
    return sum(len(re.findall(r"\bredis_[a-z]+\b", server.log.read_text())) for server in cluster.servers)


async def attempts(redis: Redis) -> int:
    """Connections that Redis has ever been asked for, refused ones included."""
    stats = await redis.info("stats")
    return int(stats["total_connections_received"]) + int(stats["rejected_connections"])


@pytest.mark.scenario(
    "F10",
    "Redis refuses: no more clients, the user is off, the channels are not allowed",
    "degraded, all comes within about two seconds; one line in the log per change of state, and attempts are few",
    seconds=38,
)
async def test_redis_refuses_every_connection(scene):
    """Protocol 8.1: accepted and refused again is as good as gone."""
    cluster = await scene.start()
    refusals = {
        "no more clients": (("CONFIG", "SET", "maxclients", "1"), ("CONFIG", "SET", "maxclients", "10000")),
        "the user is off": (("ACL", "SETUSER", "default", "off"), ("ACL", "SETUSER", "default", "on")),
        "no channel is allowed": (
            ("ACL", "SETUSER", "default", "resetchannels"),
            ("ACL", "SETUSER", "default", "allchannels"),
        ),
    }
    calm, aways = Span(), [Span() for _ in refusals]

    async def faults(run) -> None:
        with calm:
            await asyncio.sleep(2)
        async with operator(cluster) as redis:
            for (what, (refuse, allow)), away in zip(refusals.items(), aways, strict=True):
                before, tried = warnings(cluster), await attempts(redis)
                with scene.fault(what), away:
                    await redis.execute_command(*refuse)
                    await end_all_others(redis)
                    await is_noticed(scene, cluster, away)
                    async with watched(run, cluster):
                        await asyncio.sleep(scene.scale.pick(gate=3, whole=6))
                    # Of each process: down, a publish refused, and what the publisher still waited for.
                    lines = warnings(cluster) - before
                    assert 0 < lines <= 3 * len(cluster.servers), f"{lines} lines, {what}"
                    tried = await attempts(redis) - tried
                    scene.notes[f"attempts_{what.replace(' ', '_')}"] = tried
                    assert len(cluster.servers) <= tried <= MOST_ATTEMPTS * len(cluster.servers), what
                    await redis.execute_command(*allow)
                await is_back(scene, cluster)

    played = await scene.play(faults)
    without_redis(scene, played, calm, *aways)


@pytest.mark.scenario(
    "F11",
    "Redis forgets all: FLUSHALL, SCRIPT FLUSH, a restart",
    "no effect at all; of the restart, that all catch up within about two seconds",
    seconds=16,
)
async def test_redis_forgets_all(scene):
    """Protocol 1.2: nothing that matters is kept there."""
    cluster = await scene.start()
    calm, forgetting, restart = Span(), Span(), Span()

    async def faults(_run) -> None:
        with calm:
            await asyncio.sleep(2)
        with scene.fault("Redis forgets all"), forgetting:
            async with untouched(cluster):
                for _ in range(10):
                    await cluster.valkey.command("FLUSHALL")
                    await cluster.valkey.command("SCRIPT", "FLUSH")
                    await asyncio.sleep(0.3)
                await is_back(scene, cluster)
        before = await count(cluster, "redis_reconnects")
        with scene.fault("Redis starts anew"), restart:
            await asyncio.to_thread(cluster.valkey.process.stop)
            await until_redis(cluster, "down", LATE_SECONDS)
            await cluster.valkey.start()
        await is_back(scene, cluster)
        assert await count(cluster, "redis_reconnects") >= before + len(cluster.servers)

    played = await scene.play(faults)
    nothing_came_late(scene, played, calm, forgetting.settled)
    assert not [
        event
        for event in played.history.events
        if event.name == "resync" and forgetting.since < event.at < forgetting.until
    ]
    no_send_failed(played)
    no_send_waited(scene, played, calm, restart)
    assert played.slowest_delivery(begun_after=restart.since) < LATE_SECONDS


@pytest.mark.scenario(
    "F12", "Redis has no memory left (noeviction)", "publishing and subscribing need none: no effect", seconds=22
)
async def test_redis_has_no_memory_left(scene):
    """Protocol 8.1."""
    cluster = await scene.start()
    calm, full = Span(), Span()

    async def faults(run) -> None:
        with calm:
            await asyncio.sleep(2)
        with scene.fault("Redis is full"), full:
            await cluster.valkey.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await cluster.valkey.command("CONFIG", "SET", "maxmemory", "1mb")
            async with untouched(cluster):
                for _ in range(int(scene.scale.pick(gate=3, whole=10))):
                    with pytest.raises(OutOfMemoryError):
                        await cluster.valkey.command("SET", "a", "b")
                    for device in scene.rng.sample(run.devices, 10):  # who subscribes anew is not refused, either
                        device.reconnect()
                    await asyncio.sleep(1)
                await is_back(scene, cluster)

    played = await scene.play(faults)
    nothing_came_late(scene, played, calm, full)
    no_send_failed(played)
    no_send_waited(scene, played, calm, full)


@pytest.mark.scenario(
    "F16",
    "A process stands still for 2 s, and Redis closes its subscription: its output buffer is full",
    "it notices when it runs again, and all catch up within about two seconds",
    seconds=14,
)
async def test_redis_closes_a_subscription_that_does_not_read(scene):
    """Protocol 5.4, 8.1."""
    cluster = await scene.start()
    server = cluster.servers[0]
    still = Span()

    async def faults(run) -> None:
        await asyncio.sleep(2)
        before = [await counted(each, "redis_reconnects") for each in cluster.servers]
        await cluster.valkey.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 512kb 1")
        users = [user.encode() for user in run.plan.users]
        with scene.fault("a process stands still"), still:
            server.signal(signal.SIGSTOP)
            try:
                async with operator(cluster) as redis:
                    # Past what the kernel holds for a connection; no frame, so nobody is told of it.
                    for _ in range(40):
                        await redis.publish(b"user:" + scene.rng.choice(users), b"x" * 1_000_000)
                await asyncio.sleep(2)
            finally:
                os.kill(server.pid, signal.SIGCONT)
        info = await cluster.valkey.command("INFO", "stats")
        assert isinstance(info, dict)
        assert info["client_output_buffer_limit_disconnections"] > 0
        await is_back(scene, cluster)
        after = [await counted(each, "redis_reconnects") for each in cluster.servers]
        assert after[0] > before[0]

    played = await scene.play(faults)
    assert played.slowest_delivery(begun_after=still.until) < LATE_SECONDS
    slowest = played.slowest_delivery()
    assert slowest < still.until - still.since + LATE_SECONDS
