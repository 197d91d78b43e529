"""What PostgreSQL stands on gives way: a full disk, a backup put back, rows that are written for hours."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from app.db.operations import renew_epoch
from app.db.pool import Database
from tests.faults.kit.cluster import PostgresNode
from tests.faults.kit.postgres import defects, failed_when_well, kept_streams, wrong_rows
from tests.faults.kit.vitals import leaks, vitals_of
from tests.support.servers import Server, new_user
from tests.support.streams import StreamClient

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

DISK_MEGABYTES = 240


@pytest.fixture
async def small_disk(scene) -> AsyncIterator[Path]:
    """A file system of its own for PostgreSQL, that is soon full."""
    disk = scene.cluster.folder / "pg"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m,mode=0755", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False, timeout=10)
    if mounted.returncode != 0:
        pytest.skip(f"a full disk needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        await scene.cluster.postgres.close()
        subprocess.run(["umount", "--lazy", str(disk)], check=True, timeout=10)


@pytest.mark.scenario(
    "F30",
    "PostgreSQL's disk is full: first for its tables, then for its log of changes, too",
    "503, never a 201 that is not stored; streams stay open; with room again all goes on by itself",
)
async def test_the_disk_is_full(scene, small_disk):
    """Protocol 1.1, 2.5, 8.2."""
    logs = scene.cluster.folder / "logs"  # on a disk that has room
    logs.mkdir()
    logs.chmod(0o777)
    settings = {"max_wal_size": "64MB", "min_wal_size": "32MB", "logging_collector": "on", "log_directory": str(logs)}
    scene.cluster.postgres = PostgresNode(small_disk, settings=settings)
    cluster = await scene.start()
    filler = small_disk / "filler"
    restarts = 0

    async def faults(_run) -> None:
        nonlocal restarts
        await asyncio.sleep(2)
        with scene.fault("the disk is full"):
            ends_at = time.monotonic() + scene.scale.pick(gate=6, whole=15)
            tables_only_until = time.monotonic() + scene.scale.pick(gate=2, whole=6)
            while time.monotonic() < ends_at:
                _fill(small_disk, filler)
                if time.monotonic() > tables_only_until:
                    await _begin_a_piece_of_log(cluster.postgres)
                await asyncio.sleep(0.2)
            filler.unlink()
            if not cluster.postgres.process.running:  # what the host's supervisor would do
                restarts += 1
                await cluster.postgres.start()
        await asyncio.sleep(7)

    played = await scene.play(faults)
    panics = sum(log.read_text(errors="replace").count("PANIC") for log in logs.iterdir())
    assert panics > 0, "the log of changes still had room"
    scene.notes["crashes of PostgreSQL"], scene.notes["of which it had to be started"] = panics, restarts
    ((begin, end, _),) = played.history.faults
    statuses = {each.status for each in played.history.attempts if begin + 1 <= each.invoked_at <= end}
    assert 503 in statuses, "nobody noticed that the disk was full"
    assert statuses <= {200, 201, 503}
    assert kept_streams(played.history), "a stream has ended"
    failed = failed_when_well(played.history)
    assert failed == 0, f"{failed} sends failed though there was room again"
    assert await wrong_rows(cluster) == []
    assert defects(cluster) == []


def _fill(disk: Path, filler: Path) -> None:
    """Take all room that is left; PostgreSQL gives some back when it ends a file."""
    room = os.statvfs(disk)
    free = room.f_bavail * room.f_frsize
    if free > 0:
        with filler.open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), free)


async def _begin_a_piece_of_log(postgres: PostgresNode) -> None:
    """Make PostgreSQL leave the room it has set aside for its log; it crashes when there is none."""
    try:
        async with asyncio.timeout(2):
            connection = await postgres.connect()
            try:
                await connection.fetch("SELECT pg_logical_emit_message(false, 'full', ''), pg_switch_wal()")
            finally:
                connection.terminate()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pass  # it is down, or has just crashed


@pytest.mark.scenario(
    "F33",
    "a backup is put back: once while Gapless runs, once with all of it stopped",
    "every client is told to reload, whatever its cursor; then all goes on without a hole",
)
async def test_a_backup_is_put_back(scene):
    """Protocol 2.4, 6.1, 6.2, 6.4: with `gapless restored` after it, as the operations page says."""
    cluster = await scene.start()
    before = await vitals_of(cluster)
    for is_running in (True, False):
        await _put_back(scene, is_running=is_running)
    assert await leaks(cluster, before) == []
    assert await wrong_rows(cluster) == []


async def _put_back(scene, *, is_running: bool) -> None:
    cluster = scene.cluster
    here, there = cluster.servers
    ada, bob, cleo = new_user("ada"), new_user("bob"), new_user("cleo")
    await here.know(ada, bob, cleo)
    kept = [await here.send(ada, bob, f"kept {number}") for number in range(5)]
    clients = {"at the backup": await _opened(here, bob)}
    await _copy(cluster.postgres, "postgres", "backup")

    # Goes on beyond the backup, with numbers that the restored database will give again.
    conversation_id = kept[0]["conversation_id"]
    lost = [await there.send(ada, bob, f"lost {number}") for number in range(7)]
    clients |= {name: await _opened(server, bob) for name, server in (("beyond", here), ("still open", there))}
    await _heard(clients["at the backup"], len(lost))
    for name in ("at the backup", "beyond"):
        clients[name].cut()
    old_cursors = {name: client.cursor for name, client in clients.items()}
    seen_before = {name: len(client.events) for name, client in clients.items()}

    if not is_running:
        clients["still open"].cut()
        await asyncio.gather(*(server.terminate() for server in cluster.servers))
    await cluster.postgres.stop_fast()
    _swap_in(cluster.postgres, "backup", "postgres")
    await cluster.postgres.start()
    database = Database(cluster.postgres.url)
    await renew_epoch(database)  # what `gapless restored` does
    await database.close()
    if not is_running:
        await asyncio.gather(*(server.start() for server in cluster.servers))

    again = await _until_sent(here, ada, bob, lost[3])
    assert again["id"] != lost[3]["id"], "a message that the database forgot came back"
    assert again["seq"] == len(kept) + 1
    new = [await there.send(cleo, bob, f"new {number}") for number in range(20)]  # past every old cursor
    for name, client in clients.items():
        if client.is_closed:
            await client.open()
        assert client.cursor == old_cursors[name] or name == "still open"
        resync = await client.until("resync", 3 * scene.scale.heartbeat_seconds)
        assert (resync.json["scope"], resync.json["reason"]) == ("all", "epoch"), name
    last = await here.send(ada, bob, "the last")
    for name, client in clients.items():
        await _heard_of(client, last["id"])
        events = client.events[seen_before[name] :]
        place = next(place for place, event in enumerate(events) if event.name == "resync")
        assert not [event for event in events[:place] if event.name == "new_message"], f"{name}: foreign data"
        seqs = [int(event.id.split(".")[1]) for event in events[place:] if event.id]
        assert seqs == list(range(seqs[0], len(kept) + len(new) + 3)), f"{name}: {seqs}"
        client.cut()
    status, changes = await here.call("GET", f"/conversations/{conversation_id}/changes?after_rev=1000", user=bob)
    assert (status, changes["rev"] < 1000) == (200, True), "a copy from before is not told that it is one"


async def _opened(server: Server, user: str) -> StreamClient:
    return await StreamClient(server, user).connected()


async def _heard(client: StreamClient, count: int) -> None:
    while len(client.contents) < count:
        await client.until("new_message")


async def _heard_of(client: StreamClient, message_id: str) -> None:
    while (await client.until("new_message")).json["id"] != message_id:
        pass


async def _until_sent(server: Server, sender: str, recipient: str, message: dict) -> dict:
    """Repeat a send with its key, as its client does, until it is known what became of it."""
    body = {
        "recipient_id": recipient,
        "content": message["content"],
        "client_message_id": message["client_message_id"],
    }
    async with asyncio.timeout(15):
        while True:
            status, answer = await server.call("POST", "/messages/send", user=sender, json=body)
            if status in {200, 201}:
                assert status == 201
                return answer
            assert status == 503, answer
            await asyncio.sleep(0.1)


async def _copy(postgres: PostgresNode, name: str, to: str) -> None:
    """A backup of the plainest kind: stop, copy, start."""
    await postgres.stop_fast()
    shutil.rmtree(postgres.folder / to, ignore_errors=True)
    shutil.copytree(postgres.folder / name, postgres.folder / to, symlinks=True)
    await postgres.start()


def _swap_in(postgres: PostgresNode, backup: str, name: str) -> None:
    shutil.rmtree(postgres.folder / name)
    (postgres.folder / backup).rename(postgres.folder / name)


@pytest.mark.scenario(
    "F35",
    "the same few users are written to without a pause",
    "the rows that count their messages stay in a few pages; the last minute is as fast as the first",
    seconds=150.0,
)
@pytest.mark.timeout(3900)
async def test_the_rows_that_count_are_written_for_long(scene):
    """Protocol 2.1: the price of a seq per user is one row that every message updates."""
    minutes = float(os.environ.get("SOAK_MINUTES") or scene.scale.pick(gate=0.2, whole=2))
    cluster = await scene.start()
    before = await vitals_of(cluster)
    users = [new_user("busy") for _ in range(20)]
    await cluster.servers[0].know(*users)
    for server in cluster.servers:
        await server.know(*users)
    connection = await cluster.postgres.connect()
    sizes, p99s = [], []
    try:
        for _ in range(6):
            took = await _send_for(cluster.servers, users, seconds=minutes * 10)
            p99s.append(statistics.quantiles(took, n=100)[98])
            sizes.append(await connection.fetchval("SELECT pg_table_size('inbox_heads')") // 1024)
    finally:
        await connection.close()
    scene.notes["first p99, ms"], scene.notes["last p99, ms"] = round(p99s[0] * 1000), round(p99s[-1] * 1000)
    scene.notes["table of counters, KB"] = sizes[-1]
    scene.notes["messages"] = await _messages(cluster)
    assert sizes[-1] <= 1024, f"the table of {len(users)} rows grew to {sizes} KB"
    # The slower half against the first: one slow moment of the machine is no trend.
    assert statistics.median(p99s[3:]) < 2 * max(p99s[0], 0.02), f"p99 in ms: {[round(p * 1000) for p in p99s]}"
    assert await leaks(cluster, before) == []
    assert await wrong_rows(cluster) == []
    assert defects(cluster) == []


async def _send_for(servers: list[Server], users: list[str], *, seconds: float) -> list[float]:
    """Let every user write to the next, one message after the other; give how long each took."""
    took: list[float] = []
    ends_at = time.monotonic() + seconds

    async def write(number: int) -> None:
        while time.monotonic() < ends_at:
            began_at = time.monotonic()
            await servers[number % len(servers)].send(users[number], users[(number + 1) % len(users)], "x" * 80)
            took.append(time.monotonic() - began_at)

    await asyncio.gather(*(write(number) for number in range(len(users))))
    return took


async def _messages(cluster) -> int:
    connection = await cluster.postgres.connect()
    try:
        return await connection.fetchval("SELECT count(*) FROM messages")
    finally:
        await connection.close()
