"""What every change to a conversation shares: its lock, its number, its commit; and reading what changed.

The order of a change is always the same: lock the conversation, *then* read (in a new statement: a
statement's snapshot is older than the locks it waited for), write, take the rev, count, commit.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from app import deadline
from app.db.conversations import conversation_from_row
from app.db.statements import statements
from app.errors import NotFoundError
from app.events import LARGE_GROUP_MEMBERS, Conversation, Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

    from app.db.pool import Connection, Database

    # Each of those who must be told, with the number that the change has for that user.
    Counted = Sequence[tuple[str, int]]

T = TypeVar("T")

_SQL = statements("changes")


@dataclass(frozen=True, slots=True)
class ReadPosition:
    """How far a member has read."""

    user_id: str
    last_read_seq: int


@dataclass(frozen=True, slots=True)
class Changes:
    """The latest state of all that is newer than a rev: absolute values, from one snapshot.

    `rev` is what to ask from the next time: that of the last item while there are more, else the
    conversation's. Nothing is lost between pages: what changes meanwhile moves above every rev.
    Messages up to `joined_seq` are no longer readable: a copy kept from before a user left and
    returned drops them. In groups over 100 members, which have no live read positions of others,
    `read_positions` holds the reader's own alone.
    """

    rev: int
    joined_seq: int
    conversation: Conversation
    read_positions: list[ReadPosition]
    items: list[Message]
    has_more: bool


async def commit(
    database: Database, work: Callable[[Connection], Awaitable[T]], *, conversation_id: UUID | None = None
) -> T:
    """Run `work` in a transaction, when it is its turn; when this returns it is committed.

    What locks a conversation names it; the caller has seen that the user is a member: nobody else waits. The work
    runs again when PostgreSQL asks for it, or when it meets a row that is held, so it must not do what a rollback
    does not undo. Raises UnavailableError.
    """
    return await database.turns.run(lambda: _run(database, work), conversation_id)


async def commit_small(database: Database, work: Callable[[Connection], Awaitable[T]], *, user_id: str | None) -> T:
    """Do the same with what changes the rows of one user alone; None for several who are new."""
    return await database.turns.run(lambda: _run(database, work), user_id, is_small=True)


async def _run(database: Database, work: Callable[[Connection], Awaitable[T]]) -> T:
    async with aclosing(database.transactions()) as attempts:
        async for transaction in attempts:
            async with transaction as connection:
                result = await work(connection)
    return result  # type: ignore[possibly-undefined]  # there is at least one attempt


async def lock_conversation(connection: Connection, user_id: str, conversation_id: UUID) -> None:
    """Keep every other change and send out until the commit. NotFoundError unless a member asks.

    Raises UnavailableError where the lock came too late for the request: another may have changed, and been
    told that it has, what this one would overwrite.
    """
    locked = await connection.fetchval(_SQL["lock_conversation"], user_id, conversation_id)
    deadline.seconds_left()
    if locked is None:
        raise NotFoundError


async def next_rev(connection: Connection, conversation_id: UUID) -> int:
    """Take the next rev of a conversation that is locked."""
    rev: int = await connection.fetchval(_SQL["next_rev"], conversation_id)
    return rev


async def count_change(connection: Connection, conversation_id: UUID, *, also: Sequence[str] = ()) -> Counted:
    """Count one change for every member, and for `also`, who just left. The last write of a change."""
    rows = await connection.fetch(_SQL["count_change"], conversation_id, list(also))
    return [(row["user_id"], row["change"]) for row in rows]


async def changes_after(
    database: Database, user_id: str, conversation_id: UUID, *, after_rev: int, limit: int
) -> Changes:
    """Read everything stamped after a rev, in one statement. Raises NotFoundError."""
    row = await database.fetchrow(
        _SQL["changes_after"], user_id, conversation_id, after_rev, limit + 1, LARGE_GROUP_MEMBERS
    )
    if row is None:
        raise NotFoundError
    items = [Message.from_row(item) for item in row["items"] or ()]
    has_more = len(items) > limit
    positions = zip(row["user_ids"], row["seqs"], strict=True)
    return Changes(
        rev=items[limit - 1].rev if has_more else row["rev"],
        joined_seq=row["joined_seq"],
        conversation=conversation_from_row(row, row),
        read_positions=[ReadPosition(user_id, seq) for user_id, seq in positions],
        items=items[:limit],
        has_more=has_more,
    )
