"""What PostgreSQL stands on gives way: a full disk, rows that are written for hours."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from tests.faults.kit.nodes import PostgresNode
from tests.faults.kit.postgres import BACK_SECONDS, defects, failed_when_well, kept_streams, wrong_rows
from tests.faults.kit.probes import LIST, Answer, complaints, probing, until_well
from tests.faults.kit.vitals import leaks, vitals_of
from tests.support.servers import Server, new_user

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

DISK_MEGABYTES = 240
BACK_UP_SECONDS = 60.0
WRITING_MINUTES = float(os.environ.get("SOAK_MINUTES") or 5)
SPREAD_KB, SPREAD_FACTOR = 512, 1.5
LOOK_SECONDS = 0.5
_SIZE_AND_SNAPSHOT = """
    SELECT pg_table_size('inbox_heads') / 1024, coalesce(extract(epoch FROM max(now() - xact_start)), 0)::float8
    FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()"""


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
    "503, never a 201 that is not stored; reads go on while it runs, streams always; with room again all by itself",
    seconds=32.0,
    mounts=True,
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
    probes: list[Answer] = []

    async def faults(run) -> None:
        async with probing(cluster, run.plan.users[0], probes):
            await fill_the_disk()
            await until_well(probes, within_seconds=BACK_SECONDS)
            await asyncio.sleep(BACK_SECONDS)

    async def fill_the_disk() -> None:
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
            restarts = await _supervise(cluster.postgres)

    played = await scene.play(faults, changes_share=0.02, reads_share=0.02)
    panics = sum(log.read_text(errors="replace").count("PANIC") for log in logs.iterdir())
    assert panics > 0, "the log of changes still had room"
    scene.notes["crashes of PostgreSQL"], scene.notes["of which it had to be started"] = panics, restarts
    ((begin, end, _),) = played.history.faults
    statuses = {each.status for each in played.history.attempts if begin + 1 <= each.invoked_at <= end}
    assert 503 in statuses, "nobody noticed that the disk was full"
    assert statuses <= {200, 201, 503}
    assert complaints(probes, played.history.faults, back_seconds=BACK_SECONDS) == set()
    first_refused = min(each.invoked_at for each in played.history.attempts if each.status == 503)
    read = [answer for answer in probes if answer.path == LIST and first_refused < answer.invoked_at < end]
    scene.notes["reads while the disk was full"] = len(read)
    scene.notes["of these answered"] = sum(answer.status == 200 for answer in read)
    assert any(answer.status == 200 for answer in read), "nothing could be read"
    assert kept_streams(played.history), "a stream has ended"
    failed = failed_when_well(played.history)
    assert failed == 0, f"{failed} sends failed though there was room again"


def _fill(disk: Path, filler: Path) -> None:
    """Take all room that is left; PostgreSQL gives some back when it ends a file."""
    room = os.statvfs(disk)
    free = room.f_bavail * room.f_frsize
    if free > 0:
        with filler.open("ab") as file, suppress(OSError):  # PostgreSQL was quicker
            os.posix_fallocate(file.fileno(), file.tell(), free)


async def _supervise(postgres: PostgresNode) -> int:
    """Start PostgreSQL until it answers, as the host's supervisor would; gives how often. It may be about to end."""
    restarts = 0
    async with asyncio.timeout(BACK_UP_SECONDS):
        while True:
            try:
                (await postgres.connect()).terminate()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # it is down, or in recovery
                if not postgres.process.running:
                    restarts += 1
                    await postgres.start()
                await asyncio.sleep(0.1)
            else:
                return restarts


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
    "F35",
    f"the same few users are written to without a pause, for {WRITING_MINUTES:g} minutes",
    "the rows that count their messages do not spread; p99 of the second half is below twice the first sixth's",
    seconds=WRITING_MINUTES * 60 + 30,
)
@pytest.mark.timeout(WRITING_MINUTES * 60 * 1.2 + 300)
async def test_the_rows_that_count_are_written_for_long(scene):
    """Protocol 2.1: the price of a seq per user is one row that every message updates."""
    cluster = await scene.start()
    before = await vitals_of(cluster)
    users = [new_user("busy") for _ in range(20)]
    for server in cluster.servers:
        await server.know(*users)
    p99s: list[float] = []
    sizes: list[int] = []
    async with _watching(cluster.postgres) as looks:
        for _ in range(6):
            looks.clear()
            took = await _send_for(cluster.servers, users, seconds=WRITING_MINUTES * 10)
            p99s.append(statistics.quantiles(took, n=100)[98])
            sizes.append(max(size for size, _ in looks))
            held = max(held for _, held in looks)
            scene.notes["oldest snapshot, s"] = max(scene.notes.get("oldest snapshot, s", 0.0), round(held, 2))
    scene.notes["first p99, ms"], scene.notes["last p99, ms"] = round(p99s[0] * 1000), round(p99s[-1] * 1000)
    scene.notes["table of counters, KB"] = ", ".join(map(str, sizes))
    scene.notes["messages"] = await _messages(cluster)
    # What a row leaves behind is swept while no older snapshot needs it: an ANALYZE of large tables has one.
    most = max(SPREAD_KB, SPREAD_FACTOR * max(sizes[:3]))
    assert max(sizes[3:]) <= most, f"the table of {len(users)} rows grew to {sizes} KB"
    # The slower half against the first: one slow moment of the machine is no trend.
    assert statistics.median(p99s[3:]) < 2 * max(p99s[0], 0.02), f"p99 in ms: {[round(p * 1000) for p in p99s]}"
    assert await leaks(cluster, before) == []
    assert await wrong_rows(cluster) == []
    assert defects(cluster) == []


@asynccontextmanager
async def _watching(postgres: PostgresNode) -> AsyncIterator[list[tuple[int, float]]]:
    """Look again and again at the KB of the table of counters, and the seconds of the oldest snapshot."""
    looks: list[tuple[int, float]] = []
    connection = await postgres.connect()

    async def look() -> None:
        while True:
            [(size, held)] = await connection.fetch(_SIZE_AND_SNAPSHOT)
            looks.append((size, held))
            await asyncio.sleep(LOOK_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield looks
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        connection.terminate()


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
