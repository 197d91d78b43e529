"""PostgreSQL stops, crashes, freezes and loses its connections: sends are answered, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from contextlib import suppress

import aiohttp
import asyncpg
import pytest

from app.services.send_queue import WRITERS
from tests.faults.kit.link import Pair
from tests.faults.kit.postgres import (
    BACK_SECONDS,
    FOR_REQUESTS,
    back_after,
    failed_by_fault,
    failed_when_well,
    kept_streams,
    longest_silence,
    sender,
    usable_connections,
)
from tests.faults.kit.probes import Answer, complaints, probing, unnoticed, until_well
from tests.history.plan import Send, new_key

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

REFUSED_SECONDS = 3.0  # where nobody listens nothing is waited for; the catalogue's 2 s, and this machine's


@pytest.mark.scenario(
    "F18",
    "PostgreSQL is restarted (fast)",
    "sends and reads: 503 with `Retry-After` within 3 s; `/ready`: 503; streams stay open; all goes on within 5 s",
    gate=True,
    seconds=33.0,
    pictured=True,
)
async def test_postgresql_is_restarted(scene):
    """Protocol 2.4, 2.5, 5.4, 8.2."""
    cluster = await scene.start()
    refusals: list[tuple[float, int, str | None]] = []
    probes: list[Answer] = []

    async def faults(run) -> None:
        async with probing(cluster, run.plan.users[0], probes):
            for _ in range(int(scene.scale.pick(gate=1, whole=3))):
                await asyncio.sleep(scene.scale.pick(gate=1.5, whole=4))
                await _restart(scene, run, refusals)
                await until_well(probes, within_seconds=BACK_SECONDS)
        await asyncio.sleep(scene.scale.pick(gate=0, whole=BACK_SECONDS))

    played = await scene.play(faults, changes_share=0.02, reads_share=0.02)
    assert {status for _, status, _ in refusals} <= {200, 503}
    unavailable = [(seconds, after) for seconds, status, after in refusals if status == 503]
    assert unavailable, "nobody noticed the restart"
    assert all(after is not None and int(after) >= 1 for _, after in unavailable)
    slowest = max(seconds for seconds, _ in unavailable)
    scene.notes["slowest refusal, s"] = round(slowest, 2)
    assert slowest < REFUSED_SECONDS
    _assert_probed(played, probes)
    await _assert_sound(scene, played)


async def _restart(scene, run, refusals) -> None:
    repeating = asyncio.create_task(_keep_repeating(scene.cluster.servers[0], run, refusals))
    try:
        with scene.fault("PostgreSQL restarts"):
            await scene.cluster.postgres.stop_fast()
            await asyncio.sleep(1)
            await scene.cluster.postgres.start()
    finally:
        repeating.cancel()
        (outcome,) = await asyncio.gather(repeating, return_exceptions=True)
    if isinstance(outcome, Exception):  # it was to be told 503, and not that there is nobody
        raise outcome


async def _keep_repeating(server, run, refusals) -> None:
    """Repeat a message that is stored: it is answered with it, or not now, and changes nothing."""
    groups = {run.conversations[talk.number] for talk in run.plan.talks if not talk.is_direct}
    known = next(each for each in run.history.attempts if each.message_id and each.conversation_id in groups)
    body = {"conversation_id": known.conversation_id, "content": known.content, "client_message_id": known.key}
    headers = {"Authorization": f"Bearer {run.rest.token(known.sender)}"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), headers=headers) as session:
        while True:
            began_at = time.monotonic()
            async with session.post(f"{server.url}/api/v1/messages/send", json=body) as response:
                after = response.headers.get("Retry-After")
                refusals.append((time.monotonic() - began_at, response.status, after))
            await asyncio.sleep(0.05)


@pytest.mark.scenario(
    "F19",
    "PostgreSQL crashes: a backend killed, stopped without a checkpoint, all of it killed",
    "every connection breaks; acknowledged messages survive recovery; streams stay open; sends go on within 5 s",
    seconds=30.0,
)
async def test_postgresql_crashes(scene):
    """Protocol 1.1, 2.2, 2.4, 8.2."""
    cluster = await scene.start()
    postgres = cluster.postgres

    async def kill_a_backend() -> None:
        connection = await postgres.connect()
        try:
            writers = "SELECT pid FROM pg_stat_activity WHERE application_name = 'gapless writer' LIMIT 1"
            os.kill(await connection.fetchval(writers), signal.SIGKILL)
        finally:
            connection.terminate()

    async def stop_without_checkpoint() -> None:
        await postgres.stop_immediate()
        await postgres.start()

    async def kill_all() -> None:
        for pid in postgres.pids():
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(postgres.process.kill)
        await postgres.start()

    async def faults(_run) -> None:
        for crash in (kill_a_backend, stop_without_checkpoint, kill_all):
            await asyncio.sleep(scene.scale.pick(gate=2, whole=5))
            before = await _backends(cluster)
            with scene.fault(crash.__name__.replace("_", " ")):
                await crash()
                await _until_gone(cluster, before)
        await asyncio.sleep(BACK_SECONDS)

    played = await scene.play(faults)
    scene.notes["sends to be repeated, by crash"] = str(failed_by_fault(played.history))
    assert all(failed_by_fault(played.history)), "a crash that nobody noticed"
    await _assert_sound(scene, played)


async def _backends(cluster) -> set[int]:
    connection = await cluster.postgres.connect()
    try:
        rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'gapless%'")
    finally:
        await connection.close()
    return {row["pid"] for row in rows}


async def _until_gone(cluster, backends: set[int]) -> None:
    """Wait until PostgreSQL answers again, with none of these left."""
    assert backends
    async with asyncio.timeout(20):
        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                assert not backends & await _backends(cluster), "a connection outlived the crash"
                return
            await asyncio.sleep(0.05)


@pytest.mark.scenario(
    "F20",
    "PostgreSQL is frozen for 30 s",
    "sends and reads: 503 within 5 s; `/ready`: 503; streams stay open and beat; in 5 s all goes on, pools whole",
    pictured=True,
    seconds=50.0,
)
async def test_postgresql_is_frozen(scene):
    """Protocol 2.5, 7.4, 8.2."""
    cluster = await scene.start()
    probes: list[Answer] = []

    async def faults(run) -> None:
        async with probing(cluster, run.plan.users[0], probes):
            await asyncio.sleep(3)
            with scene.fault("PostgreSQL is frozen"):
                cluster.postgres.freeze()
                try:
                    await asyncio.sleep(scene.scale.pick(gate=7, whole=30))
                finally:
                    cluster.postgres.thaw()
            await until_well(probes, within_seconds=BACK_SECONDS)
            await asyncio.sleep(BACK_SECONDS)

    played = await scene.play(faults, changes_share=0.02, reads_share=0.02)
    assert all(failed_by_fault(played.history)), "nobody noticed"
    _assert_probed(played, probes)
    await _assert_whole_pools(cluster)
    await _assert_sound(scene, played)


@pytest.mark.scenario(
    "F21",
    "the network forgets every connection to PostgreSQL: no answer, no reset",
    "every send is answered within 5 s; within 10 s all go on over new connections, and pools are whole",
    seconds=48.0,
)
async def test_connections_to_postgresql_are_forgotten(scene):
    """Protocol 2.5, 7.4, 8.2."""
    cluster = await scene.start(link_postgres=True)
    links = cluster.postgres_links
    forgotten: set[Pair] = set()

    async def faults(_run) -> None:
        for link in links:
            link.only = forgotten.__contains__
        for _ in range(int(scene.scale.pick(gate=1, whole=3))):
            await asyncio.sleep(2)
            with scene.fault("connections are forgotten"):
                for link in links:
                    assert link.pairs - forgotten, "there was nothing to forget"
                    forgotten.update(link.pairs)
                    link.freeze()
                await asyncio.sleep(BACK_SECONDS)  # who waits for an answer gives up
            await asyncio.sleep(BACK_SECONDS)
        scene.notes["connections forgotten"] = len(forgotten)
        assert all(link.pairs - forgotten for link in links), "there are no new connections"
        for link in links:
            link.heal()
        await asyncio.sleep(1)

    played = await scene.play(faults)
    assert all(failed_by_fault(played.history)), "nobody noticed"
    await _assert_whole_pools(cluster)
    await _assert_sound(scene, played)


@pytest.mark.scenario(
    "F22",
    "every connection to PostgreSQL is terminated, every 3 s",
    "no request fails that was not under way, and no send twice; no connection is left in disorder, pools are whole",
    seconds=38.0,
)
async def test_connections_are_terminated_again_and_again(scene):
    """Protocol 2.4, 2.5, 8.2."""
    cluster = await scene.start()
    terminated: list[int] = []

    async def faults(run) -> None:
        connection = await cluster.postgres.connect()
        try:
            for _ in range(int(scene.scale.pick(gate=3, whole=7))):
                await asyncio.sleep(3)
                with scene.fault("all terminated"):
                    terminated.append(await connection.fetchval(TERMINATE))
                # After that second nobody is hurt any more.
                await asyncio.sleep(1)
                talk = run.plan.talks[0]
                await sender(run).send(Send(0, talk.number, talk.members[0], new_key(run.rng), "all is well"))
        finally:
            await connection.close()

    played = await scene.play(faults, changes_share=0.02)
    scene.notes["connections terminated"] = sum(terminated)
    # Two writers a process, at least.
    assert min(terminated) >= WRITERS * len(cluster.servers), f"terminated, by round: {terminated}"
    history = played.history
    failed = [each for each in history.attempts if each.message_id is None]
    scene.notes["sends to be repeated"] = len(failed)
    assert max(Counter(each.key for each in failed).values(), default=0) <= 1, "a send failed twice"
    hurt = [*failed, *(call for call in history.calls if call.status in {0, 503})]
    begins = [begin for begin, _, _ in history.faults]
    late = [each for each in hurt if not any(begin - 1 <= each.ended_at <= begin + 2 for begin in begins)]
    assert len(late) == 0, f"{len(late)} requests failed though nobody hurt them"
    await _assert_whole_pools(cluster)
    await _assert_sound(scene, played)


TERMINATE = """
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'gapless%'
"""


def _assert_probed(played, probes: list[Answer]) -> None:
    """Who only asks is told that nothing can be said, and as soon as it can what it is."""
    assert unnoticed(probes, played.history.faults) == set()
    assert complaints(probes, played.history.faults, back_seconds=BACK_SECONDS) == set()


async def _assert_whole_pools(cluster) -> None:
    usable = await usable_connections(cluster)
    assert usable == FOR_REQUESTS * len(cluster.servers), f"of all pools {usable} connections can be used"


async def _assert_sound(scene, played) -> None:
    """Nobody lost a stream, nobody failed in good times, and the tables are whole."""
    assert kept_streams(played.history), "a stream has ended"
    silence = longest_silence(played.history)
    assert silence < 1.5 * scene.scale.heartbeat_seconds + 2, f"a stream was silent for {silence:.1f} s"
    failed = failed_when_well(played.history)
    assert failed == 0, f"{failed} sends failed in good times"
    back_seconds = back_after(played.history)
    scene.notes["first send after a fault, s"] = round(back_seconds, 2)
    assert back_seconds < BACK_SECONDS
    scene.notes["longest delivery, s"] = round(played.slowest_delivery(), 2)
