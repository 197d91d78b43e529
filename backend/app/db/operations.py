"""What an operator asks of PostgreSQL: is it set up right, and does it know that it was restored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from app.db.statements import statements
from app.errors import UnavailableError

if TYPE_CHECKING:
    from app.db.pool import Database

_SQL = statements("operations")


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """Settings of the PostgreSQL server that decide whether a 201 can be believed."""

    version: int  # 180004 is 18.4
    fsync: str
    synchronous_commit: str
    full_page_writes: str
    synchronous_standby_names: str
    max_connections: int
    connections: int
    standbys: int
    is_standby: bool
    now: datetime


async def renew_epoch(database: Database) -> None:
    """Begin a new history. Raises asyncpg.UndefinedTableError for a database that was never migrated."""
    await database.fetchval(_SQL["renew_epoch"])


async def read_facts(database: Database) -> DatabaseFacts:
    """Read the facts. Raises UnavailableError."""
    row = await database.fetchrow(_SQL["facts"])
    if row is None:
        raise UnavailableError
    return DatabaseFacts(**row)
