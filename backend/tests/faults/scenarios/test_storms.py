"""Everybody at once."""

from __future__ import annotations

import asyncio
import http.client
import math
import statistics
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
import pytest

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.crowd import Crowd, many_descriptors
from tests.faults.kit.scene import ANSWER_SECONDS, Scene
from tests.faults.kit.vitals import MOST_CONNECTIONS, SPARE_MEGABYTES, leaks, resident_megabytes, vitals_of
from tests.faults.scenarios.calm import TIMES_CALM
from tests.support.servers import new_user, token_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

BACK_SECONDS = 60.0  # the aim is 5 s, on a machine that has nothing else to do; it is noted, and this is an end
ASKED_TO_WAIT_SECONDS = 20.0  # docs/protocol.md, 4.7: who is told to come back later waits for up to so long
CALM_SECONDS = 3.0
SENDS_WAIT_SECONDS = 1.0  # in a storm
MEGABYTES_PER_STREAM = 0.25  # a page of replay, what it is made of, and the transport's buffer
TOLD_SECONDS = 15.0
PAGE = 100  # messages that are read at once for one client
MAX_REPLAY = 1000  # docs/protocol.md, 6.2
SENDS_AT_ONCE = 8


@pytest.mark.scenario(
    "F54",
    "10,000 streams are reset and come back at once",
    "all are back in three times what their first coming took, and the wait they are asked for; nothing is missed;"
    " sends take a second longer at most (p99); PostgreSQL sees no more connections",
    seconds=45,
)
async def test_a_storm_of_reconnects(scene):
    """Protocol 5.1, 4.7: none is refused for ever, and none of those who send is forgotten."""
    with many_descriptors(int(scene.scale.pick(gate=400, whole=10_000))) as count:
        cluster = await scene.start()
        before = await vitals_of(cluster)
        owner = new_user("owner")
        with Crowd(cluster, [new_user("crowd") for _ in range(count)]) as crowd:
            began_at = time.monotonic()
            await crowd.open()
            came_seconds = time.monotonic() - began_at
            groups = await crowd.groups(owner)
            async with _watched(cluster) as calm:
                await asyncio.sleep(CALM_SECONDS)
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
            "all open at first after s": round(came_seconds, 1),
            "all open again after s": round(opened_seconds, 1),
            "all caught up after s": round(back_seconds, 1),
            "connections to PostgreSQL": seen.most_connections,
            "told to come back later": turned_away,
        }
        assert back_seconds < TIMES_CALM * came_seconds + ASKED_TO_WAIT_SECONDS
        _judge_sends(scene, calm, seen)
        assert seen.most_connections <= MOST_CONNECTIONS * len(cluster.servers)
        assert await leaks(cluster, before) == []


@pytest.mark.scenario(
    "F55",
    "2,000 clients come back at once to 500 missed messages each, some to more than 1,000",
    "replayed in pages of 100; over the limit they are told to reload; memory is bounded;"
    " sends take a second longer at most (p99)",
    seconds=80,
)
async def test_a_storm_with_a_backlog(scene):
    """Protocol 5.1, 5.2, 6.2."""
    missed = int(scene.scale.pick(gate=60, whole=500))
    with many_descriptors(int(scene.scale.pick(gate=50, whole=2000))) as count:
        cluster = await scene.start()
        before = await vitals_of(cluster)
        owner, server = new_user("owner"), cluster.servers[0]
        with Crowd(cluster, [new_user("crowd") for _ in range(count)], open_seconds=BACK_SECONDS * 2) as crowd:
            await crowd.open()
            groups = await crowd.groups(owner)
            too_far = crowd.users[: count // 10]
            extra = await server.group(owner, *too_far)
            await crowd.until_caught_up(seconds=10)
            async with _watched(cluster) as calm:
                await asyncio.sleep(CALM_SECONDS)
            crowd.cut()
            gate = asyncio.Semaphore(SENDS_AT_ONCE)

            async def post(group: str, number: int) -> None:
                async with gate:
                    await server.post(owner, group, f"{number} " + "x" * 100)

            await asyncio.gather(*(post(group, number) for group in groups for number in range(missed)))
            await asyncio.gather(*(post(extra, number) for number in range(MAX_REPLAY + 1 - missed)))
            resting = await vitals_of(cluster)
            scanned = await _inbox_scans(cluster)
            async with _watched(cluster) as seen:
                began_at = time.monotonic()
                await crowd.reopen()
                await crowd.until_caught_up(seconds=BACK_SECONDS * 2)
                back_seconds = time.monotonic() - began_at
            received, found, resyncs = crowd.tally("received"), crowd.faults(), crowd.tally("resyncs")
            assert received == missed * (count - len(too_far))
            assert found == {}
            assert resyncs >= len(too_far)
            await _has_read_pages(cluster, scanned, (count - len(too_far)) * math.ceil(missed / PAGE))
        grown = [most - rest.megabytes for most, rest in zip(seen.most_megabytes, resting, strict=True)]
        scene.notes |= {
            "streams": count,
            "all caught up after s": round(back_seconds, 1),
            "messages replayed a second": round(received / back_seconds),
            "MB grown at most": round(max(grown)),
        }
        most_megabytes = 64 + MEGABYTES_PER_STREAM * count / len(cluster.servers)
        assert max(grown) < most_megabytes
        _judge_sends(scene, calm, seen)
        # The allocator keeps what pages of so many replays took, for the next ones.
        assert await leaks(cluster, before, spare_megabytes=SPARE_MEGABYTES + most_megabytes) == []


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
    """Send all the while, as two users who have nothing to do with it, and look at memory and connections.

    In a thread: the event loop here has thousands of clients of its own to wait for.
    """
    ada, bob = new_user("ada"), new_user("bob")
    await cluster.servers[0].know(ada, bob)
    seen = _Seen([0.0] * len(cluster.servers))
    connection = await cluster.postgres.connect()
    is_over = threading.Event()

    def send() -> None:
        headers = {"Authorization": f"Bearer {token_for(ada)}", "Content-Type": "application/json"}
        body = orjson.dumps({"recipient_id": bob, "content": "hello"})
        ways = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=20) for server in cluster.servers]
        while not is_over.is_set():
            for way in ways:
                began_at = time.monotonic()
                way.request("POST", "/api/v1/messages/send", body, headers)
                with way.getresponse() as answer:
                    assert answer.status == 201, answer.read()
                    answer.read()
                seen.answer_seconds.append(time.monotonic() - began_at)
            is_over.wait(0.02)
        for way in ways:
            way.close()

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

    sender, looker = asyncio.ensure_future(asyncio.to_thread(send)), asyncio.ensure_future(look())
    try:
        yield seen
        failed = [watcher for watcher in (sender, looker) if watcher.done()]
        assert not failed, failed
    finally:
        is_over.set()
        looker.cancel()
        await asyncio.gather(sender, looker, return_exceptions=True)
        await connection.close()


def _judge_sends(scene: Scene, calm: _Seen, seen: _Seen) -> None:
    """Those who had nothing to do with it hardly waited."""
    usual, then, slowest = calm.p99_seconds, seen.p99_seconds, max(seen.answer_seconds)
    scene.notes |= {"p99 of sends before, s": usual, "p99 of sends meanwhile, s": then}
    assert then <= TIMES_CALM * usual + SENDS_WAIT_SECONDS
    assert slowest < ANSWER_SECONDS


async def _inbox_scans(cluster: Cluster) -> int:
    """How often PostgreSQL has looked for entries of an inbox."""
    connection = await cluster.postgres.connect()
    try:
        return await connection.fetchval("SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 'inbox'")
    finally:
        await connection.close()


async def _has_read_pages(cluster: Cluster, before: int, pages: int) -> None:
    """Each page was looked for. PostgreSQL tells of that a little later."""
    deadline = time.monotonic() + TOLD_SECONDS
    while (read := await _inbox_scans(cluster) - before) < pages:
        assert time.monotonic() < deadline, f"{read} reads, where there are {pages} pages"
        await asyncio.sleep(0.5)
