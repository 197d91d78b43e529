"""PostgreSQL stops, crashes, freezes and loses its connections: sends are answered, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import aiohttp
import pytest

from tests.faults.kit.postgres import (
    BACK_SECONDS,
    defects,
    failed_when_well,
    kept_streams,
    longest_silence,
    sender,
    wrong_rows,
)
from tests.history.plan import Send, new_key

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


@pytest.mark.scenario(
    "F18",
    "PostgreSQL is restarted (fast)",
    "503 with `Retry-After` meanwhile; streams stay open and beat; sends go on within 5 s",
    gate=True,
)
async def test_postgresql_is_restarted(scene):
    """Protocol 2.4, 2.5, 5.4, 8.2."""
    cluster = await scene.start()
    refusals: list[tuple[float, int, str | None]] = []

    async def faults(run) -> None:
        for _ in range(int(scene.scale.pick(gate=1, whole=3))):
            await asyncio.sleep(scene.scale.pick(gate=1.5, whole=5))
            probe = asyncio.create_task(_keep_repeating(cluster.servers[0], run, refusals))
            try:
                with scene.fault("PostgreSQL restarts"):
                    await cluster.postgres.stop_fast()
                    await asyncio.sleep(1)
                    await cluster.postgres.start()
            finally:
                probe.cancel()
                await asyncio.gather(probe, return_exceptions=True)
        await asyncio.sleep(scene.scale.pick(gate=0.5, whole=BACK_SECONDS))

    played = await scene.play(faults)
    assert {status for _, status, _ in refusals} <= {200, 503}
    unavailable = [(seconds, after) for seconds, status, after in refusals if status == 503]
    assert unavailable, "nobody noticed the restart"
    assert all(after is not None and int(after) >= 1 for _, after in unavailable)
    scene.notes["slowest refusal, s"] = round(max(seconds for seconds, _ in unavailable), 2)
    await _assert_sound(scene, played)


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
    "every acknowledged message survives recovery; streams stay open; sends go on within 5 s",
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
            with scene.fault(crash.__name__.replace("_", " ")):
                await crash()
        await asyncio.sleep(BACK_SECONDS)

    played = await scene.play(faults)
    await _assert_sound(scene, played)


@pytest.mark.scenario(
    "F20",
    "PostgreSQL is frozen for 20 s",
    "every request is answered within 5 s; streams stay open and beat; sends go on within 5 s of its return",
    pictured=True,
)
async def test_postgresql_is_frozen(scene):
    """Protocol 2.5, 7.4, 8.2."""
    cluster = await scene.start()

    async def faults(_run) -> None:
        await asyncio.sleep(3)
        with scene.fault("PostgreSQL is frozen"):
            cluster.postgres.freeze()
            try:
                await asyncio.sleep(scene.scale.pick(gate=7, whole=20))
            finally:
                cluster.postgres.thaw()
        await asyncio.sleep(BACK_SECONDS + 3)

    played = await scene.play(faults)
    await _assert_sound(scene, played)


@pytest.mark.scenario(
    "F21",
    "the network forgets every connection to PostgreSQL: no answer, no reset",
    "every request is answered within 5 s; within 10 s all go on over new connections",
)
async def test_connections_to_postgresql_are_forgotten(scene):
    """Protocol 2.5, 7.4, 8.2."""
    cluster = await scene.start(link_postgres=True)

    async def faults(_run) -> None:
        for _ in range(int(scene.scale.pick(gate=1, whole=3))):
            await asyncio.sleep(2)
            with scene.fault("connections are forgotten"):
                for link in cluster.postgres_links:
                    forgotten = set(link.pairs)
                    link.only = forgotten.__contains__
                    link.freeze()
                await asyncio.sleep(BACK_SECONDS)  # who waits for an answer gives up
            await asyncio.sleep(BACK_SECONDS)
        for link in cluster.postgres_links:
            link.heal()
        await asyncio.sleep(1)

    played = await scene.play(faults)
    await _assert_sound(scene, played)


@pytest.mark.scenario(
    "F22",
    "every connection to PostgreSQL is terminated, every 3 s",
    "no request fails that was not under way; no connection is left in disorder",
)
async def test_connections_are_terminated_again_and_again(scene):
    """Protocol 2.4, 2.5, 8.2."""
    cluster = await scene.start()
    terminated = 0

    async def faults(run) -> None:
        nonlocal terminated
        connection = await cluster.postgres.connect()
        try:
            for _ in range(int(scene.scale.pick(gate=3, whole=7))):
                await asyncio.sleep(3)
                with scene.fault("all terminated"):
                    terminated += await connection.fetchval(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        " WHERE application_name LIKE 'gapless%'"
                    )
                # After that second nobody is hurt any more.
                await asyncio.sleep(1)
                talk = run.plan.talks[0]
                await sender(run).send(Send(0, talk.number, talk.members[0], new_key(run.rng), "all is well"))
        finally:
            await connection.close()

    played = await scene.play(faults, changes_share=0.02)
    scene.notes["connections terminated"] = terminated
    history = played.history
    hurt = [each for each in history.attempts if each.message_id is None]
    scene.notes["sends to be repeated"] = len(hurt)
    begins = [begin for begin, _, _ in history.faults]
    late = [each for each in hurt if not any(begin - 1 <= each.ended_at <= begin + 2 for begin in begins)]
    assert len(late) == 0, f"{len(late)} sends failed though nobody hurt them"
    await _assert_sound(scene, played)


async def _assert_sound(scene, played) -> None:
    """Nobody lost a stream, nobody failed in good times, and the tables are whole."""
    assert kept_streams(played.history), "a stream has ended"
    silence = longest_silence(played.history)
    assert silence < 2 * scene.scale.heartbeat_seconds + 2, f"a stream was silent for {silence:.1f} s"
    failed = failed_when_well(played.history)
    assert failed == 0, f"{failed} sends failed in good times"
    slowest = played.slowest_delivery()
    scene.notes["longest delivery, s"] = round(slowest, 2)
    assert await wrong_rows(scene.cluster) == []
    assert defects(scene.cluster) == []
