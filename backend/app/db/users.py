"""Users and their inbox heads in PostgreSQL. A user without a head does not exist: see `ensure`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.db.statements import statements
from app.events import Person

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from app.db.pool import Connection, Database

_SQL = statements("users")


@dataclass(frozen=True, slots=True)
class StoredUser:
    """What is stored of a user."""

    person: Person
    profile_at: datetime | None  # None: no profile was ever stored
    tokens_valid_after: datetime | None


async def find(database: Database, user_id: str) -> StoredUser | None:
    """Read a user."""
    row = await database.fetchrow(_SQL["find"], user_id)
    if row is None:
        return None
    return StoredUser(_person(row), row["profile_at"], row["tokens_valid_after"])


async def find_visible(database: Database, reader_id: str, user_id: str) -> Person | None:
    """Read a user as `reader_id` may see it; None where the two share no conversation."""
    row = await database.fetchrow(_SQL["find_visible"], reader_id, user_id)
    return None if row is None else _person(row)


async def list_users(database: Database, *, limit: int) -> list[Person]:
    """Read the oldest users."""
    return [_person(row) for row in await database.fetch(_SQL["list"], limit)]


async def ensure(connection: Connection, user_ids: Sequence[str]) -> None:
    """Make the users that are missing, with their heads. Call it in a transaction."""
    await connection.execute(_SQL["insert_missing"], user_ids)
    await connection.execute(_SQL["insert_missing_heads"], user_ids)


async def take_profile(connection: Connection, person: Person, *, issued_at: datetime) -> None:
    """Store what a token says of its user, unless something newer is stored."""
    await connection.execute(_SQL["take_profile"], person.id, person.name, person.avatar_url, issued_at)


async def put_profile(connection: Connection, person: Person) -> None:
    """Store a profile as it is, also where it takes a name away."""
    await connection.execute(_SQL["put_profile"], person.id, person.name, person.avatar_url)


async def revoke(database: Database, user_id: str) -> datetime | None:
    """Refuse every token issued until now. Returns that time, committed; None for an unknown user."""
    valid_after: datetime | None = await database.fetchval(_SQL["revoke"], user_id)
    return valid_after


def _person(row: Any) -> Person:  # asyncpg's records are untyped
    return Person(row["id"], row["name"], row["avatar_url"])
