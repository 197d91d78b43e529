"""Migrations beside a database that is in use."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import asyncpg
import pytest

from app.db import migrate, migrations

VERSIONS = Path(migrations.__file__).parent / "versions"
NEWER = """
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("{statement}")
"""


def _newer(folder: Path, statement: str) -> list[Path]:
    (folder / "0004_newer.py").write_text(NEWER.format(statement=statement))
    return [VERSIONS, folder]


async def test_a_migration_that_must_wait_stands_in_nobodys_way(database_url, connection, tmp_path):
    """Protocol 2.5: behind a lock that waits, everybody waits; so it gives up and tries again."""
    versions = _newer(tmp_path, "ALTER TABLE messages ADD COLUMN added text")
    reader = await asyncpg.connect(database_url)
    waits = []
    try:
        await reader.execute("BEGIN; SELECT count(*) FROM messages")
        migrating = asyncio.create_task(asyncio.to_thread(migrate.upgrade, database_url, versions=versions))
        ends_at = time.monotonic() + 4
        while time.monotonic() < ends_at:
            began_at = time.monotonic()
            await connection.fetchval("SELECT count(*) FROM messages")
            waits.append(time.monotonic() - began_at)
            await asyncio.sleep(0.01)
        assert not migrating.done()
    finally:
        await reader.close()
    await asyncio.wait_for(migrating, 20)
    assert max(waits) > 0.2, "nobody ever waited: the migration has not tried"
    assert max(waits) < 2
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "0004"
    assert await connection.fetch("SELECT added FROM messages") == []


async def test_it_says_so_when_it_never_gets_the_table(database_url, connection, tmp_path, monkeypatch):
    """A deploy that hangs for ever is worse than one that fails."""
    monkeypatch.setattr(migrate, "GIVE_UP_SECONDS", 0)
    versions = _newer(tmp_path, "ALTER TABLE messages ADD COLUMN added text")
    async with connection.transaction():
        await connection.fetchval("SELECT count(*) FROM messages")
        with pytest.raises(TimeoutError, match="let go of a table"):
            await asyncio.to_thread(migrate.upgrade, database_url, versions=versions)


async def test_a_migration_that_is_wrong_is_not_tried_again(database_url, tmp_path):
    versions = _newer(tmp_path, "ALTER TABLE messages ADD COLUMN content text")
    with pytest.raises(Exception, match="already exists"):
        await asyncio.to_thread(migrate.upgrade, database_url, versions=versions)
