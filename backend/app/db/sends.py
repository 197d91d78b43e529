"""The call that commits: many sends in one transaction (`send_batch` in db/migrations/)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.db.statements import statements
from app.events import Message, Person

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    import asyncpg

_SQL = statements("sends")
_SEND_BATCH = "SELECT * FROM send_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
_PER_SEND = ("outcomes", "message_ids", "conversation_ids", "seqs", "revs", "sender_names", "sender_avatars")


@dataclass(frozen=True, slots=True)
class Send:
    """One message to be written. Of `conversation_id` and `recipient_id` exactly one is set."""

    message_id: UUID
    sender_id: str
    client_message_id: UUID
    request_hash: bytes
    content: str
    conversation_id: UUID | None
    recipient_id: str | None
    reply_to_id: UUID | None
    new_conversation_id: UUID
    token_issued_at: datetime | None

    @property
    def target(self) -> tuple[str, ...]:
        """What the send contends for: its conversation, or the pair of users that is one."""
        if self.conversation_id is not None:
            return (str(self.conversation_id),)
        return tuple(sorted((self.sender_id, self.recipient_id or "")))


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What became of one send; all but `outcome` and `message_id` are for `created` only."""

    outcome: str
    message_id: UUID
    message: Message | None
    recipients: Sequence[tuple[str, int]]
    database_epoch: str


async def send_batch(
    connection: asyncpg.Connection[asyncpg.Record], sends: Sequence[Send], *, lock_timeout_ms: int
) -> list[SendOutcome]:
    """Write a batch; when this returns it is committed. Outcomes are in the order of `sends`.

    Raises asyncpg's errors: 40001 (run it again), 55P03 (a row is held for longer than the time-out).
    """
    row: Any = await connection.fetchrow(  # a function of one row: never None
        _SEND_BATCH,
        [s.message_id for s in sends],
        [s.sender_id for s in sends],
        [s.client_message_id for s in sends],
        [s.request_hash for s in sends],
        [s.content for s in sends],
        [s.conversation_id for s in sends],
        [s.recipient_id for s in sends],
        [s.reply_to_id for s in sends],
        [s.new_conversation_id for s in sends],
        [s.token_issued_at for s in sends],
        lock_timeout_ms,
    )
    values = zip(*(row[column] for column in _PER_SEND), strict=True)
    recipients = _recipients(len(sends), row)
    return [
        _outcome(send, row, addressed, *own) for send, addressed, own in zip(sends, recipients, values, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A row that somebody has locked: a conversation, a member of one, or the head of a user."""

    name: str
    holder: str  # the same as long as it is the same transaction


async def held_rows(
    connection: asyncpg.Connection[asyncpg.Record], sends: Sequence[Send], lock_timeout_ms: int
) -> list[frozenset[HeldRow]]:
    """Tell for each send which of the rows that it would lock are locked just now.

    Waits for no row, and for `lock_timeout_ms` where somebody holds a whole table.
    """
    held: list[set[HeldRow]] = [set() for _ in sends]
    async with connection.transaction():
        await connection.execute("SELECT set_config('lock_timeout', $1, true)", str(lock_timeout_ms))
        rows = await connection.fetch(
            _SQL["held_rows"],
            [s.conversation_id for s in sends],
            [s.sender_id for s in sends],
            [s.recipient_id for s in sends],
        )
    for row in rows:
        held[row["item"] - 1].add(HeldRow(row["name"], row["holder"]))
    return [frozenset(rows) for rows in held]


def _recipients(sends: int, row: Any) -> list[list[tuple[str, int]]]:
    """Sort the recipients by their send. There are none if nothing was created."""
    addressed = zip(row["user_ids"] or (), row["inbox_seqs"] or (), strict=True)
    if sends == 1:
        return [list(addressed)]
    recipients: list[list[tuple[str, int]]] = [[] for _ in range(sends)]
    for item, recipient in zip(row["recipient_items"] or (), addressed, strict=True):
        recipients[item - 1].append(recipient)
    return recipients


def _outcome(
    send: Send,
    row: Any,
    recipients: Sequence[tuple[str, int]],
    outcome: str,
    message_id: UUID,
    *numbers_and_sender: Any,
) -> SendOutcome:
    if outcome != "created":
        return SendOutcome(outcome, message_id, None, (), row["epoch"])
    conversation_id, seq, rev, sender_name, sender_avatar = numbers_and_sender
    message = Message(
        id=send.message_id,
        conversation_id=conversation_id,
        seq=seq,
        rev=rev,
        sender=Person(send.sender_id, sender_name, sender_avatar),
        client_message_id=send.client_message_id,
        content=send.content,
        reply_to_id=send.reply_to_id,
        reactions=[],
        created_at=row["created_at"],
        edited_at=None,
        deleted_at=None,
    )
    return SendOutcome("created", send.message_id, message, recipients, row["epoch"])
