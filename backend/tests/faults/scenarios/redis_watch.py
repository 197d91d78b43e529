"""What the scenarios about Redis look at: while it is away, once it is back, and where it must not be missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.scene import Played, Scene
from tests.faults.kit.vitals import count, read_vitals
from tests.faults.scenarios.calm import (
    LATE_SECONDS,
    SLACK_SECONDS,
    SPARE_SECONDS,
    Span,
    no_send_failed,
    no_send_waited,
    stalled,
    typical_delivery,
)
from tests.history.run import Run
from tests.support.servers import Server

# Protocol 8.1: noticed within 6 s.
NOTICED_SECONDS = 6.0 + SPARE_SECONDS
# Until it is used again: attempts are 2 s apart at most, one takes 2 s with its proof, and then all catch up.
RECOVERED_SECONDS = 10.0
LIVE_LOOK_SECONDS = 0.5
# A head check is due; the rest is its grace and this machine.
CHECKED_SECONDS = 1.5
QUIET_SECONDS = 20.0


# --- While it goes on ----------------------------------------------------------------------------


async def redis_as_told(server: Server) -> str:
    """What a process says of Redis; that it is enough to be ready, and that nobody else is to blame."""
    status, told = await server.call("GET", "/ready")
    redis: str = told["redis"]
    if told["postgresql"] == "up":  # it did answer within a second
        assert (status, told["status"]) == (200, "ready" if redis == "up" else "degraded"), told
    return redis


async def until_redis(cluster: Cluster, state: str, within_seconds: float) -> float:
    """Wait until every process says of Redis that it is `state`; gives the seconds."""
    began_at = time.monotonic()
    async with asyncio.timeout(within_seconds):
        for server in cluster.servers:
            while await redis_as_told(server) != state:
                await asyncio.sleep(0.05)
    return time.monotonic() - began_at


async def is_noticed(scene: Scene, cluster: Cluster, away: Span | None = None) -> None:
    """The loss of Redis is noticed in time."""
    scene.notes["noticed_seconds"] = round(await until_redis(cluster, "down", NOTICED_SECONDS), 1)
    if away is not None:
        away.noticed_at = time.monotonic()


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


async def is_quiet(run: Run) -> None:
    """Devices have asked what they ask when they come, and the run is calm."""
    async with asyncio.timeout(QUIET_SECONDS):
        await asyncio.gather(*(device.until_quiet() for device in run.devices))


@asynccontextmanager
async def untouched(cluster: Cluster) -> AsyncIterator[None]:
    """No process takes Redis for dead while the block goes on, and all that is published is answered."""
    names = ("redis_reconnects", "publishes_lost")
    before = {name: await count(cluster, name) for name in names}
    yield
    assert {name: await count(cluster, name) for name in names} == before


@dataclass
class Watch:
    """What was seen of all processes: tasks, and answers to a request that needs nobody else."""

    tasks: list[int] = field(default_factory=list)
    slowest_answer_seconds: float = 0.0


@asynccontextmanager
async def watched(run: Run, cluster: Cluster) -> AsyncIterator[Watch]:
    """Until the block ends ask every process, again and again: it lives, reads, and says that Redis is away."""
    watch = Watch()

    async def look() -> None:
        while True:
            for server in cluster.servers:
                asked_at = time.monotonic()
                status, _ = await server.call("GET", "/health")
                assert status == 200
                watch.slowest_answer_seconds = max(watch.slowest_answer_seconds, time.monotonic() - asked_at)
                status, _ = await server.call("GET", "/conversations?limit=1", user=run.plan.users[0])
                assert status == 200
                assert await redis_as_told(server) == "down"
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


# --- Once it is over -----------------------------------------------------------------------------


def without_redis(scene: Scene, played: Played, calm: Span, *aways: Span) -> None:
    """No send failed or waited, and what came late came by head checks: at once from the notice on."""
    no_send_failed(played)
    for away, following in zip(aways, [*aways[1:], Span()], strict=True):
        no_send_waited(scene, played, calm, away)
        before = following.since - SLACK_SECONDS  # what was then on its way is of the next one
        assert away.since < away.noticed_at < away.until
        spare_seconds = LATE_SECONDS + stalled(played, away)
        # It may have been noticed before anything was sent.
        unnoticed = played.deliveries(begun_after=away.since, begun_before=away.noticed_at)
        assert max(unnoticed, default=0) < away.noticed_at - away.since + spare_seconds
        assert typical_delivery(played, away.noticed_at, away.until) > CHECKED_SECONDS / 10, "Redis was there"
        assert played.slowest_delivery(begun_after=away.noticed_at, begun_before=before) < spare_seconds


def longest_unnoticed(scene: Scene) -> float:
    """What a message may take of which Redis told nobody: until the loss is noticed, or until the head check."""
    return max(NOTICED_SECONDS, scene.scale.heartbeat_seconds) + CHECKED_SECONDS
