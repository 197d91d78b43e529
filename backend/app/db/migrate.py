"""Bringing a database up to this version's schema, and knowing whether it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

if TYPE_CHECKING:
    from app.db.pool import Database

_FOLDER = Path(__file__).with_name("migrations")


def migrate(database_url: str) -> None:
    """Run what is missing. Safe to call from several processes; not from inside an event loop."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


def newest_revision() -> str:
    """Name the revision that this version of the code needs."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    return ScriptDirectory.from_config(config).get_current_head() or ""


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
