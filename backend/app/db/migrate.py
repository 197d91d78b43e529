"""Bringing a database up to this version's schema, and knowing whether it is."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path

import asyncpg

from app.db.pool import Database

_FOLDER = Path(__file__).with_name("migrations")


def migrate(database_url: str) -> None:
    """Run what is missing. Safe to call from several processes; not from inside an event loop.

    Raises UnavailableError, and whatever a migration fails with.
    """
    if asyncio.run(_revision_of(database_url)) == newest_revision():
        return
    # Imported here: a process that only serves would hold 25 MB of it and start a second later.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


@cache
def newest_revision() -> str:
    """Name the revision that this version of the code needs: the last of the numbered files."""
    return max(path.name[:4] for path in (_FOLDER / "versions").glob("[0-9]*.py"))


def is_recent(revision: str | None) -> bool:
    """Whether this version of the code can serve a database at `revision`.

    A newer one, too: migrations keep what the version before them needs, so that a schema is migrated
    first and processes are replaced one by one.
    """
    return revision is not None and revision >= newest_revision()


async def current_revision(database: Database) -> str | None:
    """Name the revision of a database; None when it was never migrated. Raises UnavailableError."""
    try:
        revision = await database.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return str(revision) if revision is not None else None


async def _revision_of(database_url: str) -> str | None:
    database = Database(database_url)
    try:
        return await current_revision(database)
    finally:
        await database.close()
