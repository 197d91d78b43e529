"""Users and their inbox heads in PostgreSQL. A user without a head does not exist: see `ensure`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.db.shared_statement import SharedStatement
from app.db.statements import statements
from app.events import Person

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from app.db.pool import Connection, Database

MAX_STATEMENTS: Final = 3  # at once: clients that all come back leave connections for the senders
FIND_SECONDS: Final = 4.5

_SQL = statements("users")


@dataclass(frozen=True, slots=True)
class StoredUser:
    """What is stored of a user."""

    person: Person
    profile_at: datetime | None  # None: no profile was ever stored
    tokens_valid_after: datetime | None


class UserReader:
    """Reads users; those who ask in the same moment share a statement, as almost every request asks."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database
        self._users = SharedStatement(self._find_all, max_statements=MAX_STATEMENTS, seconds=FIND_SECONDS)

    async def find(self, user_id: str) -> StoredUser | None:
        """Read a user. Raises UnavailableError."""
        return await self._users.ask(user_id)

    async def _find_all(self, user_ids: Sequence[str]) -> list[StoredUser | None]:
        rows = await self._database.fetch(_SQL["find"], list(user_ids), for_streams=True)
        found = {row["id"]: StoredUser(_person(row), row["profile_at"], row["tokens_valid_after"]) for row in rows}
        return [found.get(user_id) for user_id in user_ids]


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


async def revoke(connection: Connection, user_id: str) -> datetime | None:
    """Refuse every token issued until now. Returns that time; None for an unknown user."""
    valid_after: datetime | None = await connection.fetchval(_SQL["revoke"], user_id)
    return valid_after


def _person(row: Any) -> Person:  # asyncpg's records are untyped
    return Person(row["id"], row["name"], row["avatar_url"])
