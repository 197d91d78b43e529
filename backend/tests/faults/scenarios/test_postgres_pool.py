"""Streams cost PostgreSQL nothing while they are idle, and a schema is changed under load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from app.db import migrations
from app.db.migrate import upgrade
from app.services.send_queue import WRITERS
from tests.faults.kit.postgres import (
    POOL,
    bound_by,
    failed_when_well,
    kept_streams,
    slowest,
)
from tests.faults.kit.probes import Answer, complaints, probing
from tests.history.records import Attempt
from tests.support.servers import new_user
from tests.support.streams import StreamClient

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

BLOCKED_SECONDS = 3.0  # a migration waits for a lock for half a second; the catalogue's 2 s, and this machine's
VERSIONS = Path(migrations.__file__).parent / "versions"


@pytest.mark.scenario(
    "F32",
    "600 more streams are opened at once and stay",
    "no stream holds a connection to PostgreSQL: at most 14 a process; sends take no longer, and none fails after",
    seconds=25.0,
)
async def test_streams_hold_no_connections(scene):
    """Protocol 4.7: what streams ask of PostgreSQL, they ask together."""
    cluster = await scene.start()
    most: dict[str, int] = {}
    opened = 0

    async def faults(_run) -> None:
        nonlocal opened
        await asyncio.sleep(scene.scale.pick(gate=1, whole=4))
        users = [new_user("idle") for _ in range(int(scene.scale.pick(gate=100, whole=600)))]
        clients = [StreamClient(cluster.servers[place % 2], user) for place, user in enumerate(users)]
        watching = asyncio.create_task(_watch(cluster, most))
        try:
            with scene.fault("streams are opened"):
                async with asyncio.timeout(60):
                    await asyncio.gather(*(_open_as_a_browser(client) for client in clients))
            opened = sum(client.status == 200 for client in clients)
            await asyncio.sleep(scene.scale.pick(gate=1, whole=12))
            for client in clients[:20]:  # and they are alive
                await cluster.servers[0].send(users[-1], client.user, "are you there")
                await client.messages(1, 15)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for client in clients:
                client.cut()

    played = await scene.play(faults)
    scene.notes["idle streams"] = opened
    scene.notes["most connections of pools"] = most["gapless"]
    assert most["gapless"] <= POOL * len(cluster.servers)
    assert most["gapless writer"] <= WRITERS * len(cluster.servers)
    ((begin, end, _),) = played.history.faults
    attempts = played.history.attempts
    failed = [each for each in attempts if each.message_id is None]
    scene.notes["sends to be repeated"] = len(failed)
    assert len(failed) <= len(attempts) / 100, f"{len(failed)} of {len(attempts)} sends failed"
    assert all(begin <= each.ended_at and each.invoked_at <= end + 1 for each in failed), "a send failed later"
    p99s = [_p99(each for each in attempts if each.ended_at < begin), _p99(_later(attempts, end + 1))]
    scene.notes["p99 before and with them, s"] = str([round(seconds, 2) for seconds in p99s])
    assert p99s[1] <= bound_by(p99s[0], played.meter.longest())
    assert kept_streams(played.history), "a stream has ended"


def _later(attempts: Iterable[Attempt], at: float) -> Iterable[Attempt]:
    return (each for each in attempts if each.invoked_at > at)


def _p99(attempts: Iterable[Attempt]) -> float:
    took = sorted(each.ended_at - each.invoked_at for each in attempts)
    return took[len(took) * 99 // 100]


async def _open_as_a_browser(client: StreamClient) -> None:
    """Open; where the server is too busy, come back as it says."""
    while True:
        with suppress(EOFError, ConnectionError, TimeoutError):
            await client.open()
            assert client.status == 200, f"refused with {client.status}"
            await client.until("connected", 20)
            return
        await asyncio.sleep(client.retry_ms / 1000)


async def _watch(cluster, most: dict[str, int]) -> None:
    """Note the most connections that there ever were, by name."""
    connection = await cluster.postgres.connect()
    try:
        while True:
            rows = await connection.fetch("SELECT application_name AS name, count(*) FROM pg_stat_activity GROUP BY 1")
            for row in rows:
                most[row["name"]] = max(most.get(row["name"], 0), row["count"])
            await asyncio.sleep(0.2)
    finally:
        connection.terminate()


@pytest.mark.scenario(
    "F34",
    "a new version's migration runs under load, and meets a long transaction",
    "no send and no read fails or is blocked for 3 s; the migration steps aside until the long transaction has ended",
    seconds=27.0,
)
async def test_a_migration_runs_under_load(scene):
    """Protocol 2.5: a table lock that waits stops everybody behind it, so it must not wait for long."""
    cluster = await scene.start()
    newer = cluster.folder / "newer"
    newer.mkdir()
    (newer / "0004_more.py").write_text(NEWER)

    probes: list[Answer] = []

    async def faults(run) -> None:
        async with probing(cluster, run.plan.users[0], probes):
            await migrate_beside_a_reader()

    async def migrate_beside_a_reader() -> None:
        await asyncio.sleep(2)
        reader = await cluster.postgres.connect()
        try:
            async with reader.transaction():
                await reader.fetchval("SELECT count(*) FROM messages")  # as a backup does, for hours
                with scene.fault("the migration waits"):
                    migrating = asyncio.create_task(asyncio.to_thread(_migrate, cluster.postgres.url, newer))
                    await asyncio.sleep(scene.scale.pick(gate=4, whole=8))
                    assert not migrating.done()
        finally:
            await reader.close()
        with scene.fault("the migration runs"):
            async with asyncio.timeout(30):
                await migrating
        await asyncio.sleep(2)

    played = await scene.play(faults)
    assert await _columns(cluster) == {"messages", "members", "inbox_heads", "conversations"}
    assert played.summary.unknown == 0, f"{played.summary.unknown} sends failed"
    calm_from, calm_to = played.history.faults[0][0], played.history.faults[-1][1]
    calm = [each for each in played.history.attempts if each.ended_at < calm_from or each.invoked_at > calm_to]
    limit_seconds = max(BLOCKED_SECONDS, bound_by(slowest(calm), played.meter.longest()))
    slowest_read = max(answer.ended_at - answer.invoked_at for answer in probes)
    scene.notes["slowest send, s"] = round(played.summary.slowest_answer_seconds, 2)
    scene.notes["slowest read, s"] = round(slowest_read, 2)
    assert played.summary.slowest_answer_seconds < limit_seconds
    assert slowest_read < limit_seconds
    assert complaints(probes, [], back_seconds=0) == set()  # none is refused either
    assert kept_streams(played.history), "a stream has ended"
    assert failed_when_well(played.history) == 0


def _migrate(url: str, newer: Path) -> None:
    upgrade(url, versions=[VERSIONS, newer])


async def _columns(cluster) -> set[str]:
    connection = await cluster.postgres.connect()
    try:
        rows = await connection.fetch("SELECT table_name FROM information_schema.columns WHERE column_name = 'added'")
        return {row["table_name"] for row in rows}
    finally:
        await connection.close()


# What a later version may do: columns, a function replaced, an index built beside the load.
NEWER = '''
"""More of everything."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for table in ("inbox_heads", "conversations", "members", "messages"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN added text")
    driver = op.get_bind().connection.dbapi_connection
    body = driver.run_async(lambda it: it.fetchval("SELECT pg_get_functiondef('send_batch'::regproc)"))
    driver.run_async(lambda it: it.execute(body))
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # it waits for others without standing in their way
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS by_added")
        op.execute("CREATE INDEX CONCURRENTLY by_added ON messages (added)")
'''
