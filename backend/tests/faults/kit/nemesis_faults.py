"""What the nemesis can do to a cluster. Each fault ends healed, also where it is cancelled."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.link import Link
from tests.support.servers import Server

START_SECONDS = 90.0  # a process does not start while PostgreSQL is away; its supervisor tries again
SLOW_SECONDS = 0.15  # each way
# Settings of the processes: what SIGUSR2 does to them, and SIGHUP.
BLOCK_SECONDS = 2.0
FAILPOINT = "hup:before_publish:kill"
CUT_BYTES = 5000
SENT_CONTENT = b"xxxx"  # in every message of the load, and in nothing else that PostgreSQL is sent
MUTE = {"clients of one process do not read"}  # it answers, and nobody hears of it
RESTART_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a round; `process` is the one it is meant for, where it is meant for one."""

    what: str
    seconds: float
    process: int
    seed: int

    def __str__(self) -> str:
        return f"{self.what} ({self.seconds:.1f} s{f', process {self.process}' if 'process' in self.what else ''})"


# --- Redis ---------------------------------------------------------------------------------------


async def _kill_redis(cluster: Cluster, fault: Fault) -> None:
    cluster.valkey.kill()
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await cluster.valkey.start()


async def _freeze_redis(cluster: Cluster, fault: Fault) -> None:
    cluster.valkey.freeze()
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        cluster.valkey.thaw()


async def _cut_redis(cluster: Cluster, fault: Fault) -> None:
    ends_at = time.monotonic() + fault.seconds
    while time.monotonic() < ends_at:
        for link in cluster.redis_links:
            link.cut()
        await asyncio.sleep(1)


async def _kill_redis_clients(cluster: Cluster, fault: Fault) -> None:
    kind = random.Random(fault.seed).choice(("pubsub", "normal"))
    ends_at = time.monotonic() + fault.seconds
    while time.monotonic() < ends_at:
        await cluster.valkey.command("CLIENT", "KILL", "TYPE", kind)
        await asyncio.sleep(2)


async def _pause_redis(cluster: Cluster, fault: Fault) -> None:
    await cluster.valkey.command("CLIENT", "PAUSE", str(int(fault.seconds * 1000)), "ALL")
    await asyncio.sleep(fault.seconds)


async def _flush_redis(cluster: Cluster, _fault: Fault) -> None:
    await cluster.valkey.command("FLUSHALL")
    await cluster.valkey.command("SCRIPT", "FLUSH")


async def _make_redis_one_way(cluster: Cluster, fault: Fault) -> None:
    async with _healed(cluster.redis_links) as links:
        for link in links:
            link.only = lambda pair: pair.is_subscriber
            link.freeze("down")
        await asyncio.sleep(fault.seconds)


async def _swallow_redis(cluster: Cluster, fault: Fault) -> None:
    async with _healed([cluster.redis_links[fault.process]]) as links:
        links[0].swallow()
        await asyncio.sleep(fault.seconds)


# --- PostgreSQL ----------------------------------------------------------------------------------


async def _restart_postgres(cluster: Cluster, _fault: Fault) -> None:
    try:
        await cluster.postgres.stop_fast()
    finally:
        await cluster.postgres.start()


async def _crash_postgres(cluster: Cluster, _fault: Fault) -> None:
    try:
        await cluster.postgres.stop_immediate()
    finally:
        await cluster.postgres.start()


async def _freeze_postgres(cluster: Cluster, fault: Fault) -> None:
    cluster.postgres.freeze()
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        cluster.postgres.thaw()


async def _terminate_backends(cluster: Cluster, fault: Fault) -> None:
    connection = await cluster.postgres.connect()
    try:
        ends_at = time.monotonic() + fault.seconds
        while time.monotonic() < ends_at:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            await asyncio.sleep(3)
    finally:
        await connection.close()


async def _lose_replies(cluster: Cluster, fault: Fault) -> None:
    """What the next transaction sends last is executed, and its reply lost with the connection."""
    ends_at = time.monotonic() + fault.seconds
    async with _healed(cluster.postgres_links) as links:
        while time.monotonic() < ends_at:
            for link in links:
                link.cut_before_reply_to(SENT_CONTENT)
            await asyncio.sleep(0.5)


async def _silence_postgres(cluster: Cluster, fault: Fault) -> None:
    async with _healed([cluster.postgres_links[fault.process]]) as links:
        links[0].freeze()
        await asyncio.sleep(fault.seconds)


# --- Processes -----------------------------------------------------------------------------------


async def _kill_process(cluster: Cluster, fault: Fault) -> None:
    server = cluster.servers[fault.process]
    server.kill()
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await _start_again(server)


async def _kill_after_commit(cluster: Cluster, fault: Fault) -> None:
    server = cluster.servers[fault.process]
    server.signal(signal.SIGHUP)  # the failpoint of FAILPOINT
    deadline = time.monotonic() + START_SECONDS
    while server.process is not None and server.process.poll() is None and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    await _start_again(server)


async def _stop_process(cluster: Cluster, fault: Fault) -> None:
    server = cluster.servers[fault.process]
    try:
        code = await server.terminate()
        assert code == 0, f"SIGTERM ended it with {code}"
    finally:
        await _start_again(server)


async def _block_process(cluster: Cluster, fault: Fault) -> None:
    server = cluster.servers[fault.process]
    server.signal(signal.SIGUSR2)
    await server.until_healthy()


async def _start_again(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            await server.start()
        except AssertionError:
            server.kill()
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(RESTART_PAUSE_SECONDS)
        else:
            return


# --- Clients -------------------------------------------------------------------------------------


async def _cut_clients(cluster: Cluster, fault: Fault) -> None:
    rng = random.Random(fault.seed)
    ends_at = time.monotonic() + fault.seconds
    while time.monotonic() < ends_at:
        rng.choice(cluster.client_links).cut()
        await asyncio.sleep(rng.uniform(1, 3))


async def _cut_responses(cluster: Cluster, fault: Fault) -> None:
    rng = random.Random(fault.seed)
    async with _healed(cluster.client_links) as links:
        for link in links:
            link.cut_each_after(lambda: rng.randrange(1, CUT_BYTES))
            link.cut()
        await asyncio.sleep(fault.seconds)


async def _stop_reading(cluster: Cluster, fault: Fault) -> None:
    async with _healed([cluster.client_links[fault.process]]) as links:
        links[0].freeze("down")
        await asyncio.sleep(fault.seconds)


async def _slow_clients(cluster: Cluster, fault: Fault) -> None:
    async with _healed(cluster.client_links) as links:
        for link in links:
            link.delay_seconds = SLOW_SECONDS
        await asyncio.sleep(fault.seconds)


@asynccontextmanager
async def _healed(links: list[Link]) -> AsyncIterator[list[Link]]:
    try:
        yield links
    finally:
        for link in links:
            link.heal()


KINDS: dict[str, dict[str, Callable[[Cluster, Fault], Awaitable[None]]]] = {
    "redis": {
        "Redis killed": _kill_redis,
        "Redis frozen": _freeze_redis,
        "Redis cut every second": _cut_redis,
        "Redis clients killed": _kill_redis_clients,
        "Redis paused": _pause_redis,
        "Redis flushed": _flush_redis,
        "Redis one way": _make_redis_one_way,
        "Redis black-holed for one process": _swallow_redis,
    },
    "postgres": {
        "PostgreSQL restarted": _restart_postgres,
        "PostgreSQL crashed": _crash_postgres,
        "PostgreSQL frozen": _freeze_postgres,
        "PostgreSQL's backends terminated": _terminate_backends,
        "PostgreSQL's replies to commits lost": _lose_replies,
        "PostgreSQL silent for one process": _silence_postgres,
    },
    "process": {
        "process killed": _kill_process,
        "process killed after a commit": _kill_after_commit,
        "process told to stop": _stop_process,
        "process blocked": _block_process,
    },
    "clients": {
        "clients cut": _cut_clients,
        "responses cut at any byte": _cut_responses,
        "clients far away": _slow_clients,
        "clients of one process do not read": _stop_reading,
    },
}
