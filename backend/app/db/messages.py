"""Reading and changing messages. A message is readable to members who joined before it was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app import deadline
from app.db.statements import statements
from app.errors import NotFoundError
from app.events import Message

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.pool import Connection, Database

_SQL = statements("messages")
_ABOVE_ALL_SEQS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class History:
    """A page of a conversation's messages, ascending, with the conversation's rev at that moment."""

    items: list[Message]
    has_more: bool
    rev: int


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """A message that a change is about, and what its reader is in its conversation."""

    message: Message
    kind: str
    role: str


# --- Reading -------------------------------------------------------------------------------------


async def own_message(database: Database, sender_id: str, message_id: UUID) -> Message:
    """Read a message for its sender, also after the sender left. Raises NotFoundError."""
    return _message(await database.fetchrow(_SQL["own_message"], sender_id, message_id))


async def visible_message(database: Database, user_id: str, message_id: UUID) -> Message:
    """Read a message for one of its readers. Raises NotFoundError."""
    return _message(await database.fetchrow(_SQL["visible_message"], user_id, message_id))


async def conversation_of(database: Database, user_id: str, message_id: UUID) -> UUID:
    """Give the conversation of a message to one who may read it. Raises NotFoundError."""
    found: UUID | None = await database.fetchval(_SQL["conversation_of"], user_id, message_id)
    if found is None:
        raise NotFoundError
    return found


async def history(
    database: Database,
    user_id: str,
    conversation_id: UUID,
    *,
    before: int | None,
    after: int | None,
    limit: int,
) -> History:
    """Read the messages next below `before`, or next above `after`, or the newest. NotFoundError."""
    forward = after is not None
    statement = _SQL["history_after" if forward else "history_before"]
    edge = after if forward else _ABOVE_ALL_SEQS if before is None else before
    row = await database.fetchrow(statement, user_id, conversation_id, edge, limit + 1)
    if row is None:
        raise NotFoundError
    found = [Message.from_row(item) for item in row["items"] or ()]
    items = found[:limit] if forward else found[-limit:]
    return History(items=items, has_more=len(found) > limit, rev=row["rev"])


# --- Changing: in the caller's transaction, under the conversation's lock ------------------------


async def lock_message(connection: Connection, user_id: str, message_id: UUID) -> FoundMessage:
    """Lock a message's conversation, as `changes.lock_conversation` does, then read the message."""
    locked = await connection.fetchval(_SQL["lock_conversation_of"], user_id, message_id)
    deadline.seconds_left()
    if locked is None:
        raise NotFoundError
    row = await connection.fetchrow(_SQL["message_and_role"], user_id, message_id)
    if row is None:  # removed while waiting for the lock
        raise NotFoundError
    return FoundMessage(message=_message(row), kind=row["kind"], role=row["role"])


async def edit(connection: Connection, message: Message, content: str) -> Message:
    """Change the text and stamp the message. Returns its new state."""
    await connection.execute(_SQL["stamp_content"], message.conversation_id, message.id, content)
    return await _reread(connection, message)


async def delete(connection: Connection, message: Message) -> Message:
    """Erase the text and the reactions, leave a stamped tombstone. Returns it."""
    await connection.execute(_SQL["stamp_tombstone"], message.conversation_id, message.id)
    return await _reread(connection, message)


async def emoji_of(connection: Connection, message: Message, user_id: str) -> dict[str, bool]:
    """Read which emoji a message carries, and of each whether `user_id` is among its givers."""
    rows = await connection.fetch(_SQL["emoji_of"], message.id, user_id)
    return {row["emoji"]: row["is_mine"] for row in rows}


async def react(connection: Connection, message: Message, user_id: str, *, emoji: str) -> Message:
    """Add a reaction and stamp the message. Returns its new state."""
    await connection.execute(_SQL["add_reaction"], message.id, user_id, emoji)
    await connection.execute(_SQL["stamp"], message.conversation_id, message.id)
    return await _reread(connection, message)


async def unreact(connection: Connection, message: Message, user_id: str, *, emoji: str) -> Message:
    """Remove a reaction and stamp the message. Returns its new state."""
    await connection.execute(_SQL["remove_reaction"], message.id, user_id, emoji)
    await connection.execute(_SQL["stamp"], message.conversation_id, message.id)
    return await _reread(connection, message)


async def _reread(connection: Connection, message: Message) -> Message:
    return _message(await connection.fetchrow(_SQL["message"], message.id))


def _message(row: Any) -> Message:
    if row is None:
        raise NotFoundError
    return Message.from_row(row)
