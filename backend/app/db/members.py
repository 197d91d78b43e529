"""Reading and changing who is in a conversation, and how far each has read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.db import turns
from app.db.statements import statements
from app.errors import NotFoundError
from app.events import LARGE_GROUP_MEMBERS, Member

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    import asyncpg

    from app.db.pool import Connection, Database

_SQL = statements("members")


@dataclass(frozen=True, slots=True)
class Standing:
    """A member's role, and what rules about members look at in the conversation."""

    kind: str
    title: str | None
    rev: int
    role: str
    member_count: int
    owner_count: int


@dataclass(frozen=True, slots=True)
class ReadState:
    """How far a member has read, and how many messages come after."""

    conversation_id: UUID
    last_read_seq: int
    unread: int


@dataclass(frozen=True, slots=True)
class Advance:
    """A read position that moved; `member_ids` is None in a group of more than 100."""

    state: ReadState
    read_at: datetime
    member_ids: list[str] | None


# --- Reading -------------------------------------------------------------------------------------


async def members_after(
    database: Database, user_id: str, conversation_id: UUID, *, after: str, limit: int
) -> list[Member]:
    """Read members in the order of their ids, for one of them. Raises NotFoundError."""
    rows = await database.fetch(_SQL["members_after"], user_id, conversation_id, after, limit)
    if not rows:
        await require_member(database, user_id, conversation_id)
    return [_member(row) for row in rows]


async def require_member(database: Database, user_id: str, conversation_id: UUID) -> None:
    """Raise NotFoundError unless the user is a member."""
    if not await database.fetchval(_SQL["is_member"], user_id, conversation_id):
        raise NotFoundError


async def audience(database: Database, user_id: str, conversation_id: UUID) -> list[str] | None:
    """Give all members' ids to one of them; None where more than 100. Raises NotFoundError."""
    found = await database.fetchval(_SQL["audience"], user_id, conversation_id, LARGE_GROUP_MEMBERS + 1)
    if found is None:
        raise NotFoundError
    return _unless_large(found)


async def user_ids(database: Database, conversation_id: UUID) -> list[str]:
    """Give the ids of all members."""
    return [row["user_id"] for row in await database.fetch(_SQL["user_ids"], conversation_id)]


async def read_state(database: Database, user_id: str, conversation_id: UUID) -> ReadState:
    """Read how far a member has read. Raises NotFoundError."""
    row = await database.fetchrow(_SQL["read_position"], user_id, conversation_id)
    if row is None:
        raise NotFoundError
    return ReadState(conversation_id, row["last_read_seq"], row["unread"])


async def advance_read_position(database: Database, user_id: str, conversation_id: UUID, *, seq: int) -> Advance | None:
    """Move a read position forward; None if it did not move, or if there is none.

    One row and no lock but its own: a thousand readers do not wait for one another.
    """

    async def advance() -> asyncpg.Record | None:
        patience = f"{turns.row_ms()}ms"
        return await database.fetchrow(
            _SQL["advance_read_position"], user_id, conversation_id, seq, LARGE_GROUP_MEMBERS + 1, patience
        )

    row = await database.turns.run(advance, (user_id, conversation_id), is_small=True)
    if row is None:
        return None
    state = ReadState(conversation_id, row["last_read_seq"], row["unread"])
    return Advance(state, row["read_at"], _unless_large(row["member_ids"]))


def _unless_large(member_ids: list[str]) -> list[str] | None:
    return member_ids if len(member_ids) <= LARGE_GROUP_MEMBERS else None


# --- Changing: in the caller's transaction, under the conversation's lock ------------------------


async def standing(connection: Connection, user_id: str, conversation_id: UUID) -> Standing:
    """Read what a member may do. Raises NotFoundError for anyone else."""
    row = await connection.fetchrow(_SQL["standing"], user_id, conversation_id)
    if row is None:
        raise NotFoundError
    return Standing(**row)


async def member(connection: Connection, conversation_id: UUID, user_id: str) -> Member | None:
    """Read one member."""
    row = await connection.fetchrow(_SQL["member"], conversation_id, user_id)
    return _member(row) if row else None


async def joined_since(connection: Connection, conversation_id: UUID, seq: int) -> set[str]:
    """Read who joined after the message with this seq, and so may not read it."""
    rows = await connection.fetch(_SQL["joined_since"], conversation_id, seq)
    return {row["user_id"] for row in rows}


async def create(
    connection: Connection, conversation_id: UUID, user_ids: Sequence[str], *, owner_id: str | None
) -> None:
    """Fill a new conversation."""
    await connection.execute(_SQL["create_members"], conversation_id, list(user_ids), owner_id)


async def add(connection: Connection, conversation_id: UUID, user_id: str, *, role: str) -> None:
    """Let a user in."""
    await connection.execute(_SQL["add_member"], conversation_id, user_id, role)


async def set_role(connection: Connection, conversation_id: UUID, user_id: str, *, role: str) -> None:
    """Make a member an owner, or an owner a member."""
    await connection.execute(_SQL["set_role"], conversation_id, user_id, role)


async def remove(connection: Connection, conversation_id: UUID, user_id: str) -> bool:
    """End a membership; false if there was none."""
    return await connection.fetchval(_SQL["remove_member"], conversation_id, user_id) is not None


async def promote_oldest(connection: Connection, conversation_id: UUID) -> str | None:
    """Give a conversation without an owner one: its oldest member. Returns who it is."""
    promoted: str | None = await connection.fetchval(_SQL["promote_oldest"], conversation_id)
    return promoted


def _member(row: Any) -> Member:
    return Member(row["id"], row["name"], row["avatar_url"], row["role"], row["last_read_seq"])
