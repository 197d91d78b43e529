"""`/health`, `/ready` and `/metrics` tell the truth, quickly, and to whoever asks."""

import asyncio
import time

import asyncpg
import pytest

from app.db.migrate import migrate
from app.embedded import start_postgres
from tests.support.ports import free_port

pytestmark = pytest.mark.e2e


async def test_a_server_with_all_its_parts_is_ready(server):
    assert await server.call("GET", "/health") == (200, {"status": "ok"})
    status, parts = await until_ready(server, "ready")
    assert (status, parts) == (200, ready_parts())
    for path in ("/health", "/ready"):
        assert (await server.call("HEAD", path))[0] == 200
    assert (await server.call("GET", "/metrics"))[0] == 404, "in production they are on METRICS_PORT alone"


async def test_without_redis_it_is_degraded_and_still_ready_from_the_start(start_server):
    server = await start_server(redis_url=f"redis://127.0.0.1:{free_port()}")
    status, parts = await server.call("GET", "/ready")
    assert (status, parts) == (200, {**ready_parts(), "status": "degraded", "redis": "down"})
    assert (await server.call("GET", "/health"))[0] == 200


async def test_without_redis_it_is_degraded_until_redis_is_back(server, valkey):
    await until_ready(server, "ready")
    valkey.kill()
    assert (await until_ready(server, "degraded"))[0] == 200


@pytest.mark.faults
async def test_without_postgresql_it_is_not_ready_and_says_so_in_time(start_server, tmp_path):
    own = start_postgres(tmp_path / "own")
    try:
        await _migrated(own.url)
        server = await start_server(database_url=own.url)
        await until_ready(server, "ready")
        own.kill()
        status, parts = await until_ready(server, "not_ready")
        assert status == 503
        assert parts == {**ready_parts(), "status": "not_ready", "postgresql": "down", "migrations": "unknown"}
        started_at = time.monotonic()
        assert (await server.call("GET", "/health"))[0] == 200
        assert (await server.call("GET", "/ready"))[0] == 503
        assert time.monotonic() - started_at < 2
    finally:
        own.stop()
    again = start_postgres(tmp_path / "own", own.port)
    try:
        assert (await until_ready(server, "ready"))[0] == 200, "it comes back by itself"
    finally:
        again.stop()


async def test_a_schema_of_another_version_is_not_ready(server, connection: asyncpg.Connection):
    await until_ready(server, "ready")
    await connection.execute("UPDATE alembic_version SET version_num = '0000'")
    status, parts = await until_ready(server, "not_ready")
    assert (status, parts) == (503, {**ready_parts(), "status": "not_ready", "migrations": "outdated"})


async def test_probes_ask_postgresql_once_a_second_however_many_come(server, connection: asyncpg.Connection):
    await until_ready(server, "ready")
    async with connection.transaction():
        # What a probe reads is held: were each to ask, each would wait for the lock, and the pool be used up.
        await connection.execute("LOCK alembic_version")
        started_at = time.monotonic()
        answers = await asyncio.gather(*(server.call("GET", "/ready") for _ in range(100)))
        assert time.monotonic() - started_at < 5
        assert {status for status, _ in answers} <= {200, 503}
    await until_ready(server, "ready")


async def _migrated(url: str) -> None:
    await asyncio.to_thread(migrate, url)


def ready_parts() -> dict:
    return {"status": "ready", "postgresql": "up", "redis": "up", "migrations": "current", "draining": False}


async def until_ready(server, wanted: str) -> tuple[int, dict]:
    """Ask until the status is the wanted one, for 15 s at most."""
    async with asyncio.timeout(15):
        while True:
            status, parts = await server.call("GET", "/ready")
            if parts["status"] == wanted:
                return status, parts
            await asyncio.sleep(0.05)
