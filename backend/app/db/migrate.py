"""Bringing a database up to this version's schema, and knowing whether it is."""

from __future__ import annotations

import asyncio
import random
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from app.db.pool import Database

if TYPE_CHECKING:
    from collections.abc import Sequence

GIVE_UP_SECONDS: Final = 300

_FOLDER = Path(__file__).with_name("migrations")
_VERSIONS = _FOLDER / "versions"
_log = structlog.get_logger(__name__)


def migrate(database_url: str) -> None:
    """Run what is missing. Safe to call from several processes; not from inside an event loop.

    Raises UnavailableError, TimeoutError when other transactions never let go of a table, and whatever a
    migration fails with.
    """
    if asyncio.run(_revision_of(database_url)) != newest_revision():
        upgrade(database_url)


def upgrade(database_url: str, *, versions: Sequence[Path] = (_VERSIONS,)) -> None:
    """Run the migrations of these folders that the database has not seen.

    A migration waits for the lock of a table for half a second only (migrations/env.py): everybody who comes
    after it waits behind it. It is rolled back then, and tried again until whoever is in its way has ended.
    """
    # Imported here: a process that only serves would hold 25 MB of it and start a second later.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(map(str, versions)))
    config.attributes["database_url"] = database_url
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            command.upgrade(config, "head")
        except Exception as error:
            if not _is_lock_time_out(error):
                raise
            if time.monotonic() > give_up_at:
                msg = f"Other transactions have not let go of a table for {GIVE_UP_SECONDS} s."
                raise TimeoutError(msg) from error
            _log.warning("migration_steps_aside")
            time.sleep(random.uniform(1, 2))  # noqa: S311 - jitter
        else:
            return


@cache
def newest_revision() -> str:
    """Name the revision that this version of the code needs: the last of the numbered files."""
    return max(path.name[:4] for path in _VERSIONS.glob("[0-9]*.py"))


def is_recent(revision: str | None) -> bool:
    """Whether this version of the code can serve a database at `revision`.

    A newer one, too: migrations keep what the version before them needs, so that a schema is migrated
    first and processes are replaced one by one.
    """
    return revision is not None and revision >= newest_revision()


async def current_revision(database: Database) -> str | None:
    """Name the revision of a database; None when it was never migrated. Raises UnavailableError."""
    try:
        revision = await database.fetchval("SELECT version_num FROM alembic_version", for_streams=True)
    except asyncpg.UndefinedTableError:
        return None
    return str(revision) if revision is not None else None


async def _revision_of(database_url: str) -> str | None:
    database = Database(database_url)
    try:
        return await current_revision(database)
    finally:
        await database.close()


def _is_lock_time_out(error: BaseException) -> bool:
    # SQLAlchemy has errors of its own, which keep the driver's.
    origin = getattr(error, "orig", error)
    return getattr(origin, "sqlstate", None) == asyncpg.LockNotAvailableError.sqlstate
