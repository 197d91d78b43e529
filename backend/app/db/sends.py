"""The call that commits: many sends in one transaction (`send_batch` in db/migrations/)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.events import Message, Person

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    import asyncpg

_SEND_BATCH = "SELECT * FROM send_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"


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
    rows = await connection.fetch(
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
    by_item = {row["item"]: row for row in rows}
    return [_outcome(send, by_item[item]) for item, send in enumerate(sends, start=1)]


def _outcome(send: Send, row: Any) -> SendOutcome:
    if row["outcome"] != "created":
        return SendOutcome(row["outcome"], row["message_id"], None, (), row["epoch"])
    message = Message(
        id=row["message_id"],
        conversation_id=row["conversation_id"],
        seq=row["seq"],
        rev=row["rev"],
        sender=Person(send.sender_id, row["sender_name"], row["sender_avatar"]),
        client_message_id=send.client_message_id,
        content=send.content,
        reply_to_id=send.reply_to_id,
        reactions=[],
        created_at=row["created_at"],
        edited_at=None,
        deleted_at=None,
    )
    recipients = tuple(zip(row["user_ids"], row["inbox_seqs"], strict=True))
    return SendOutcome("created", message.id, message, recipients, row["epoch"])
