"""Everybody at once."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.crowd import Crowd, many_descriptors
from tests.faults.kit.scene import ANSWER_SECONDS
from tests.faults.kit.vitals import MOST_CONNECTIONS, leaks, resident_megabytes, vitals_of
from tests.support.servers import new_user

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

BACK_SECONDS = 60.0  # the aim is 5 s, on a machine that has nothing else to do; it is noted, and this is an end
MEGABYTES_PER_STREAM = 0.5  # a page of replay, what it is made of, and the transport's buffer
MAX_REPLAY = 1000  # docs/protocol.md, 6.2
SENDS_AT_ONCE = 8


@pytest.mark.scenario(
    "F54",
    "10,000 streams are reset and come back at once",
    "all come back and miss nothing; sends are answered meanwhile; PostgreSQL sees no more connections",
    seconds=90,
)
async def test_a_storm_of_reconnects(scene):
    """Protocol 5.1, 4.7: none is refused for ever, and none of those who send is forgotten."""
    with many_descriptors(int(scene.scale.pick(gate=400, whole=10_000))) as count:
        cluster = await scene.start()
        before = await vitals_of(cluster)
        owner = new_user("owner")
        with Crowd(cluster, [new_user("crowd") for _ in range(count)]) as crowd:
            await crowd.open()
            groups = await crowd.groups(owner)
            async with _watched(cluster) as seen:
                crowd.cut()
                for number in range(3):
                    await asyncio.gather(*(cluster.servers[0].post(owner, group, f"{number}") for group in groups))
                began_at = time.monotonic()
                await crowd.reopen()
                opened_seconds = time.monotonic() - began_at
                await crowd.until_caught_up(seconds=BACK_SECONDS)
                back_seconds = time.monotonic() - began_at
            assert crowd.faults() == {}
            received = crowd.tally("received")
            assert received == 3 * count
            turned_away = crowd.tally("turned_away")
        scene.notes |= {
            "streams": count,
            "all open after s": round(opened_seconds, 1),
            "all caught up after s": round(back_seconds, 1),
            "p99 of sends meanwhile, s": seen.p99_seconds,
            "connections to PostgreSQL": seen.most_connections,
            "told to come back later": turned_away,
        }
        slowest = max(seen.answer_seconds)
        assert slowest < ANSWER_SECONDS
        assert seen.most_connections <= MOST_CONNECTIONS * len(cluster.servers)
        assert await leaks(cluster, before) == []


@pytest.mark.scenario(
    "F55",
    "1,000 clients come back at once to 500 missed messages each, some to more than 1,000",
    "replayed in pages; over the limit they are told to reload; memory is bounded",
    seconds=90,
)
async def test_a_storm_with_a_backlog(scene):
    """Protocol 5.1, 5.2, 6.2."""
    missed = int(scene.scale.pick(gate=60, whole=500))
    with many_descriptors(int(scene.scale.pick(gate=50, whole=1000))) as count:
        cluster = await scene.start()
        before = await vitals_of(cluster)
        owner, server = new_user("owner"), cluster.servers[0]
        with Crowd(cluster, [new_user("crowd") for _ in range(count)]) as crowd:
            await crowd.open()
            groups = await crowd.groups(owner)
            too_far = crowd.users[: count // 10]
            extra = await server.group(owner, *too_far)
            await crowd.until_caught_up(seconds=10)
            crowd.cut()
            gate = asyncio.Semaphore(SENDS_AT_ONCE)

            async def post(group: str, number: int) -> None:
                async with gate:
                    await server.post(owner, group, f"{number} " + "x" * 100)

            await asyncio.gather(*(post(group, number) for group in groups for number in range(missed)))
            await asyncio.gather(*(post(extra, number) for number in range(MAX_REPLAY + 1 - missed)))
            resting = await vitals_of(cluster)
            async with _watched(cluster) as seen:
                began_at = time.monotonic()
                await crowd.reopen()
                await crowd.until_caught_up(seconds=BACK_SECONDS * 2)
                back_seconds = time.monotonic() - began_at
            received, found, resyncs = crowd.tally("received"), crowd.faults(), crowd.tally("resyncs")
            assert received == missed * (count - len(too_far))
            assert found == {}
            assert resyncs >= len(too_far)
        grown = [most - rest.megabytes for most, rest in zip(seen.most_megabytes, resting, strict=True)]
        scene.notes |= {
            "streams": count,
            "all caught up after s": round(back_seconds, 1),
            "messages replayed a second": round(received / back_seconds),
            "MB grown at most": round(max(grown)),
            "p99 of sends meanwhile, s": seen.p99_seconds,
        }
        assert max(grown) < 64 + MEGABYTES_PER_STREAM * count / len(cluster.servers)
        slowest = max(seen.answer_seconds)
        assert slowest < ANSWER_SECONDS
        assert await leaks(cluster, before) == []


@dataclass(slots=True)
class _Seen:
    """What went on meanwhile."""

    most_megabytes: list[float]
    answer_seconds: list[float] = field(default_factory=list)
    most_connections: int = 0

    @property
    def p99_seconds(self) -> float:
        return round(statistics.quantiles([0.0, *self.answer_seconds], n=100)[98], 2)


@asynccontextmanager
async def _watched(cluster: Cluster) -> AsyncIterator[_Seen]:
    """Send all the while, as two users who have nothing to do with it, and look at memory and connections."""
    ada, bob = new_user("ada"), new_user("bob")
    await cluster.servers[0].know(ada, bob)
    seen = _Seen([0.0] * len(cluster.servers))
    connection = await cluster.postgres.connect()

    async def send() -> None:
        while True:
            for server in cluster.servers:
                began_at = time.monotonic()
                await server.send(ada, bob)
                seen.answer_seconds.append(time.monotonic() - began_at)
            await asyncio.sleep(0.02)

    async def look() -> None:
        while True:
            count = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND application_name NOT IN ('a scenario', 'gapless bench')"
            )
            seen.most_connections = max(seen.most_connections, count)
            for place, server in enumerate(cluster.servers):
                seen.most_megabytes[place] = max(seen.most_megabytes[place], resident_megabytes(server.pid))
            await asyncio.sleep(0.1)

    watchers = [asyncio.ensure_future(send()), asyncio.ensure_future(look())]
    try:
        yield seen
        failed = [watcher for watcher in watchers if watcher.done()]
        assert not failed, failed
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        await connection.close()
