"""What the scenarios about Redis look at while it is away and once it is back."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.scene import Played, Scene
from tests.faults.kit.vitals import counted, read_vitals
from tests.history.summary import delays

NOTICED_SECONDS = 6.0  # protocol 8.1
# Until it is used again: attempts are 2 s apart at most, one takes 2 s with its proof, and then all catch up.
RECOVERED_SECONDS = 10.0
LIVE_LOOK_SECONDS = 0.5
# A head check is due; the rest is its grace and this machine.
CHECKED_SECONDS = 1.5


async def until_redis(cluster: Cluster, state: str, within_seconds: float) -> float:
    """Wait until every process says of Redis that it is `state`; gives the seconds."""
    began_at = time.monotonic()
    async with asyncio.timeout(within_seconds):
        for server in cluster.servers:
            while True:
                _, told = await server.call("GET", "/ready")
                if told["redis"] == state:
                    break
                await asyncio.sleep(0.05)
    return time.monotonic() - began_at


async def is_noticed(scene: Scene, cluster: Cluster) -> None:
    """The loss of Redis is noticed in time."""
    scene.notes["noticed_seconds"] = round(await until_redis(cluster, "down", NOTICED_SECONDS), 1)


async def is_back(scene: Scene, cluster: Cluster) -> None:
    """Redis is used again in time: what is delivered comes from there, and not from head checks."""
    began_at = time.monotonic()
    async with asyncio.timeout(RECOVERED_SECONDS):
        await until_redis(cluster, "up", RECOVERED_SECONDS)
        while not await is_live(cluster):
            pass
    scene.notes["back_seconds"] = round(time.monotonic() - began_at, 1)


async def is_live(cluster: Cluster) -> bool:
    """Whether, for a moment, most of what was delivered came from Redis. Load must be played."""
    from_redis = -await count(cluster, "frames_delivered")
    from_postgres = -await count(cluster, "messages_replayed")
    await asyncio.sleep(LIVE_LOOK_SECONDS)
    from_redis += await count(cluster, "frames_delivered")
    from_postgres += await count(cluster, "messages_replayed")
    return from_redis > 4 * from_postgres


async def count(cluster: Cluster, name: str) -> int:
    """Add up what all processes have counted."""
    return sum([await counted(server, name) for server in cluster.servers])


def typical_delivery(played: Played, since: float, before: float) -> float:
    """The median from acknowledgement to hand-over, of sends acknowledged in that time."""
    return statistics.median(seconds for at, seconds in delays(played.history) if since <= at - seconds <= before)


def longest_unnoticed(scene: Scene) -> float:
    """What a message may take of which Redis told nobody: until the loss is noticed, or until the head check."""
    return max(NOTICED_SECONDS, scene.scale.heartbeat_seconds) + CHECKED_SECONDS


@dataclass
class Watch:
    """What was seen of all processes: tasks, and answers to a request that needs nobody else."""

    tasks: list[int] = field(default_factory=list)
    slowest_answer_seconds: float = 0.0


@asynccontextmanager
async def watched(cluster: Cluster) -> AsyncIterator[Watch]:
    """Look at every process, again and again, until the block ends."""
    watch = Watch()

    async def look() -> None:
        while True:
            for server in cluster.servers:
                asked_at = time.monotonic()
                status, _ = await server.call("GET", "/health")
                assert status == 200
                watch.slowest_answer_seconds = max(watch.slowest_answer_seconds, time.monotonic() - asked_at)
                watch.tasks.append((await read_vitals(server)).tasks)
            await asyncio.sleep(0.2)

    looking = asyncio.create_task(look())
    try:
        yield watch
    finally:
        looking.cancel()
        (outcome,) = await asyncio.gather(looking, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome
