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
from tests.faults.scenarios.redis_watch import is_back, is_noticed, longest_unnoticed

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


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


@pytest.mark.scenario(
    "F10",
    "Redis refuses: no more clients, the user is off, the channels are not allowed",
    "degraded, one line in the log per change of state; joins again by itself",
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

    async def faults(_run) -> None:
        await asyncio.sleep(2)
        async with operator(cluster) as redis:
            for what, (refuse, allow) in refusals.items():
                before = warnings(cluster)
                with scene.fault(what):
                    await redis.execute_command(*refuse)
                    await end_all_others(redis)
                    await is_noticed(scene, cluster)
                    await asyncio.sleep(scene.scale.pick(gate=3, whole=6))
                    # Of each process: down, a publish refused, and what the publisher still waited for.
                    lines = warnings(cluster) - before
                    assert 0 < lines <= 3 * len(cluster.servers), f"{lines} lines, {what}"
                    await redis.execute_command(*allow)
                await is_back(scene, cluster)

    played = await scene.play(faults)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)


@pytest.mark.scenario(
    "F11", "Redis forgets all: FLUSHALL, SCRIPT FLUSH, a restart", "no effect but that of the restart"
)
async def test_redis_forgets_all(scene):
    """Protocol 1.2: nothing that matters is kept there."""
    cluster = await scene.start()

    async def faults(_run) -> None:
        await asyncio.sleep(2)
        with scene.fault("Redis forgets all"):
            for _ in range(10):
                await cluster.valkey.command("FLUSHALL")
                await cluster.valkey.command("SCRIPT", "FLUSH")
                await asyncio.sleep(0.3)
            await is_back(scene, cluster)
        with scene.fault("Redis starts anew"):
            await asyncio.to_thread(cluster.valkey.process.stop)
            await cluster.valkey.start()
        await is_back(scene, cluster)

    played = await scene.play(faults)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)


@pytest.mark.scenario("F12", "Redis has no memory left (noeviction)", "publishing needs none: no effect")
async def test_redis_has_no_memory_left(scene):
    """Protocol 8.1."""
    cluster = await scene.start()

    async def faults(run) -> None:
        await asyncio.sleep(2)
        with scene.fault("Redis is full"):
            await cluster.valkey.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await cluster.valkey.command("CONFIG", "SET", "maxmemory", "1mb")
            with pytest.raises(OutOfMemoryError):
                await cluster.valkey.command("SET", "a", "b")
            for _ in range(int(scene.scale.pick(gate=3, whole=10))):
                for device in scene.rng.sample(run.devices, 10):  # who subscribes anew is not refused, either
                    device.reconnect()
                await asyncio.sleep(1)
            await is_back(scene, cluster)

    played = await scene.play(faults)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)


@pytest.mark.scenario(
    "F16",
    "A process stands still for 2 s, and Redis closes its subscription: its output buffer is full",
    "it notices when it runs again, and catches up",
)
async def test_redis_closes_a_subscription_that_does_not_read(scene):
    """Protocol 5.4, 8.1."""
    cluster = await scene.start()
    server = cluster.servers[0]

    async def faults(run) -> None:
        await asyncio.sleep(2)
        await cluster.valkey.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 512kb 1")
        users = [user.encode() for user in run.plan.users]
        with scene.fault("a process stands still"):
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

    played = await scene.play(faults)
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)
