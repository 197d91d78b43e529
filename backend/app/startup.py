"""What must be true before a process serves, each said in a sentence when it is not."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from app.db.migrate import current_revision, is_recent, newest_revision
from app.errors import UnavailableError
from app.exits import CommandError, Exit

if TYPE_CHECKING:
    from app.db.pool import Database
    from app.settings import Settings

WAIT_SECONDS: Final = 30.0  # for a PostgreSQL that starts beside the server
MIN_POSTGRES: Final = 150_000

# What waiting does not mend; their texts name the database and the user, never the password.
HOPELESS = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.ClientConfigurationError)

_log = structlog.get_logger(__name__)


class StartupError(CommandError):
    """The server cannot keep its promise in this environment."""


async def prepare(database: Database, settings: Settings) -> str:
    """Check PostgreSQL and give the key that signs cookies and tickets. Raises StartupError."""
    await _wait_for(database)
    version = int(await database.fetchval("SELECT current_setting('server_version_num')"))
    if version < MIN_POSTGRES:
        msg = f"PostgreSQL 15 or newer is needed; this is {version // 10_000}."
        raise StartupError(msg)
    revision = await current_revision(database)
    if not is_recent(revision):
        needed = newest_revision()
        msg = f"The database is at revision {revision or 'none'}, this version needs {needed}. Run: gapless migrate"
        raise StartupError(msg)
    if settings.is_production:
        await _refuse_lossy_commits(database)
    return str(await database.fetchval("SELECT value FROM meta WHERE key = 'signing_key'"))


async def _wait_for(database: Database) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            await database.fetchval("SELECT 1")
        except asyncpg.InvalidCatalogNameError as error:
            msg = f"DATABASE_URL is refused: {error}."
            raise StartupError(msg) from error
        except UnavailableError as error:
            if isinstance(error.__cause__, HOPELESS):
                msg = f"DATABASE_URL is refused: {error.__cause__}."
                raise StartupError(msg) from error
            if time.monotonic() > deadline:
                msg = f"PostgreSQL at DATABASE_URL does not answer: {type(error.__cause__).__name__}."
                raise StartupError(msg, Exit.UNAVAILABLE) from error
            _log.warning("waiting_for_postgresql", error=type(error.__cause__).__name__)
            await asyncio.sleep(1)
        else:
            return


async def _refuse_lossy_commits(database: Database) -> None:
    """A 201 means committed: these settings would make it a guess."""
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        if await database.fetchval("SELECT current_setting($1)", name) == "off":
            msg = f"PostgreSQL runs with {name}=off: a crash would lose messages that were acknowledged. Set it to on."
            raise StartupError(msg)
