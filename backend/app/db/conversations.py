"""Making, reading and naming conversations. Each is read as one of its members sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from app.db.statements import statements
from app.errors import NotFoundError
from app.events import LARGE_GROUP_MEMBERS, Conversation, Member, Message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from app.db.pool import Connection, Database

_SQL = statements("conversations")


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the order of a user's conversations: by activity, then by id."""

    active_at: datetime
    conversation_id: UUID


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of a user's conversations, and the place of its last one when there are more."""

    items: list[Conversation]
    next_place: Place | None


@dataclass(frozen=True, slots=True)
class Stored:
    """A group that a creator's key has made before."""

    conversation_id: UUID
    request_hash: bytes


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """How a member wants to see a conversation; no rev, as nobody else is concerned."""

    id: UUID
    muted_until: datetime | None
    hidden: bool


# --- Reading -------------------------------------------------------------------------------------


async def conversation(database: Database | Connection, user_id: str, conversation_id: UUID) -> Conversation:
    """Read a conversation for one of its members. Raises NotFoundError."""
    row = await database.fetchrow(_SQL["conversation"], user_id, conversation_id)
    if row is None:
        raise NotFoundError
    return conversation_from_row(row, row)


async def conversations_of(
    database: Database, user_id: str, *, hidden: bool, before: Place | None, limit: int
) -> Listed:
    """Read a page of a user's conversations, the most recently active first."""
    rows = await database.fetch(
        _SQL["conversations_of"],
        user_id,
        hidden,
        before and before.active_at,
        before and before.conversation_id,
        limit + 1,
    )
    page = rows[:limit]
    last = page[-1] if len(rows) > limit else None
    return Listed(
        items=[conversation_from_row(row, row) for row in page],
        next_place=None if last is None else Place(last["active_at"], last["id"]),
    )


async def as_seen_by(
    connection: Connection, conversation_id: UUID, concerned: Sequence[str]
) -> dict[str, Conversation]:
    """Read a locked conversation for all its members; in a group over 100, for those `concerned`."""
    shared = await connection.fetchrow(_SQL["conversation_state"], conversation_id)
    if shared is None:
        return {}
    some = list(concerned) if shared["member_count"] > LARGE_GROUP_MEMBERS else None
    readers = await connection.fetch(_SQL["reader_states"], conversation_id, some)
    return {reader["reader_id"]: conversation_from_row(shared, reader) for reader in readers}


def conversation_from_row(shared: Any, reader: Any) -> Conversation:
    """Join what all see alike with what one reader sees: nothing from before the reader joined."""
    last = shared["last_message"]
    return Conversation(
        id=shared["id"],
        kind=shared["kind"],
        title=shared["title"],
        last_seq=shared["last_seq"],
        rev=shared["rev"],
        last_message=Message.from_row(last) if last and last["seq"] > reader["joined_seq"] else None,
        unread=shared["last_seq"] - reader["last_read_seq"],
        last_read_seq=reader["last_read_seq"],
        role=reader["role"],
        muted_until=reader["muted_until"],
        hidden=reader["hidden"],
        member_count=shared["member_count"],
        members=[Member(**member) for member in orjson.loads(shared["members"] or "[]")],
    )


# --- Writing: in the caller's transaction --------------------------------------------------------


async def unknown_users(connection: Connection, user_ids: Sequence[str]) -> set[str]:
    """Give those of `user_ids` that belong to nobody."""
    rows = await connection.fetch(_SQL["unknown_users"], list(user_ids))
    return {row["id"] for row in rows}


async def create_direct(connection: Connection, new_id: UUID, *, creator_id: str, other_id: str) -> bool:
    """Make the conversation of two users; false if they have one."""
    made = await connection.fetchval(_SQL["create_direct"], new_id, creator_id, other_id)
    return made is not None


async def direct_of(connection: Connection, user_id: str, other_id: str) -> UUID | None:
    """Find the conversation of two users."""
    found: UUID | None = await connection.fetchval(_SQL["direct_of"], user_id, other_id)
    return found


async def create_group(
    connection: Connection,
    new_id: UUID,
    *,
    creator_id: str,
    title: str | None,
    client_conversation_id: UUID | None,
    request_hash: bytes,
) -> bool:
    """Make a group; false if the key was used before."""
    made = await connection.fetchval(
        _SQL["create_group"], new_id, title, creator_id, client_conversation_id, request_hash
    )
    return made is not None


async def group_of_key(connection: Connection, creator_id: str, client_conversation_id: UUID) -> Stored | None:
    """Find the group that a creator's key made."""
    row = await connection.fetchrow(_SQL["group_of_key"], creator_id, client_conversation_id)
    return Stored(row["id"], row["request_hash"]) if row else None


async def set_title(connection: Connection, conversation_id: UUID, title: str | None) -> int:
    """Rename a locked group. Returns the rev of that."""
    rev: int = await connection.fetchval(_SQL["set_title"], conversation_id, title)
    return rev


async def set_own_settings(
    connection: Connection,
    user_id: str,
    conversation_id: UUID,
    *,
    muted_until: tuple[datetime | None] | None,
    hidden: bool | None,
) -> OwnSettings | None:
    """Change what is not None (`muted_until` in a tuple, as None unmutes). None if nothing changed."""
    row = await connection.fetchrow(
        _SQL["set_own_settings"],
        user_id,
        conversation_id,
        muted_until is not None,
        muted_until[0] if muted_until else None,
        hidden is not None,
        hidden,
    )
    return OwnSettings(conversation_id, row["muted_until"], row["hidden"]) if row else None
