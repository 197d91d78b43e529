"""The rules of messages, one entry point per thing a user can do: validate, write, commit, publish, return."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import uuid_utils.compat as uuid7

from app import deadline, errors
from app.db import members, messages, sends
from app.db.changes import commit
from app.services import message_changes
from app.services.send_queue import SendQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

    from app.auth import Principal
    from app.db.pool import Connection, Database
    from app.events import Message
    from app.services.message_changes import ChangedMessage
    from app.services.messaging.publisher import Publisher
    from app.services.user_service import UserService


@dataclass(frozen=True, slots=True)
class NewMessage:
    """What a user asks to send; texts are checked at the edge (schemas/messages.py)."""

    content: str
    conversation_id: UUID | None = None
    recipient_id: str | None = None
    client_message_id: UUID | None = None
    reply_to_id: UUID | None = None

    @property
    def request_hash(self) -> bytes:
        """What makes a repeat the same request: target, content, reply."""
        parts = (self.conversation_id or "", self.recipient_id or "", self.reply_to_id or "", self.content)
        return hashlib.sha256("\n".join(map(str, parts)).encode()).digest()


class MessageService:
    """Send, read, edit, delete and react. Every write is committed before anyone is told of it."""

    def __init__(self, database: Database, publisher: Publisher, users: UserService) -> None:
        """Write to `database`, announce through `publisher`; `users` recognised who sends."""
        self._database = database
        self._publisher = publisher
        self._users = users
        self.send_queue = SendQueue(database, commit=self._commit_and_publish, ask=sends.held_rows)

    async def send_message(self, sender: Principal, new: NewMessage) -> tuple[Message, bool]:
        """Commit a message and announce it. Returns it, and whether this call made it.

        A repeated `client_message_id` returns the stored message as it now is, and false.
        Raises IdempotencyConflictError, NotFoundError, InvalidRequestError, UnauthorizedError, and
        UnavailableError when it is not known to be committed: try again with the same key.
        """
        if new.recipient_id == sender.user_id:
            raise errors.InvalidRequestError(errors.FieldError("recipient_id", "must be another user"))
        send = sends.Send(
            message_id=uuid7.uuid7(),
            sender_id=sender.user_id,
            client_message_id=new.client_message_id or uuid7.uuid7(),
            request_hash=new.request_hash,
            content=new.content,
            conversation_id=new.conversation_id,
            recipient_id=new.recipient_id,
            reply_to_id=new.reply_to_id,
            new_conversation_id=uuid7.uuid7(),
            token_issued_at=sender.issued_at,
        )
        outcome, is_first = await self._submit(send)
        if outcome.message is not None:
            return outcome.message, is_first
        if outcome.outcome == "repeat":
            return await self._stored(sender, send, outcome.message_id)
        raise _refusal(outcome.outcome)

    async def _stored(self, sender: Principal, send: sends.Send, message_id: UUID) -> tuple[Message, bool]:
        if message_id != send.message_id:
            return await messages.own_message(self._database, sender.user_id, message_id), False
        # Committed by an attempt whose answer was lost with its connection: nobody has been told. However late it is.
        with deadline.within(math.inf):
            stored = await messages.own_message(self._database, sender.user_id, message_id)
            self._publisher.read_again(await members.user_ids(self._database, stored.conversation_id))
        return stored, True

    async def _submit(self, send: sends.Send) -> tuple[sends.SendOutcome, bool]:
        try:
            return await self.send_queue.submit(send)
        except errors.UnavailableError as error:
            # A database restored underneath may not know whom this process has seen: the next try makes them known.
            if isinstance(error.__cause__, asyncpg.ForeignKeyViolationError):
                self._users.forget(send.sender_id)
            raise

    async def get_message(self, user_id: str, message_id: UUID) -> Message:
        """Read one message. Raises NotFoundError, as do all below, for whoever may not see it."""
        return await messages.visible_message(self._database, user_id, message_id)

    async def edit_message(self, user_id: str, message_id: UUID, *, content: str) -> Message:
        """Change one's own message. Raises ForbiddenError for another's, and for a deleted one."""
        edited = await self._change(
            user_id,
            message_id,
            lambda connection: message_changes.edit(connection, user_id, message_id, content=content),
        )
        self._publish_change("message_edited", edited.message, changed=edited)
        return edited.message

    async def delete_message(self, user_id: str, message_id: UUID) -> None:
        """Erase a message for good, leaving its place. Raises ForbiddenError unless one's own or an owner."""
        deleted = await self._change(
            user_id, message_id, lambda connection: message_changes.delete(connection, user_id, message_id)
        )
        message = deleted.message
        tombstone = {
            "conversation_id": message.conversation_id,
            "message_id": message.id,
            "rev": message.rev,
            "deleted_at": message.deleted_at,
        }
        self._publish_change("message_deleted", tombstone, changed=deleted)

    async def put_reaction(self, user_id: str, message_id: UUID, *, emoji: str) -> None:
        """React. Raises ForbiddenError for a deleted message, InvalidRequestError for a 21st emoji."""
        reacted = await self._change(
            user_id, message_id, lambda connection: message_changes.react(connection, user_id, message_id, emoji=emoji)
        )
        self._publish_reactions(reacted)

    async def delete_reaction(self, user_id: str, message_id: UUID, *, emoji: str) -> None:
        """Take a reaction back."""
        unreacted = await self._change(
            user_id,
            message_id,
            lambda connection: message_changes.unreact(connection, user_id, message_id, emoji=emoji),
        )
        self._publish_reactions(unreacted)

    async def _change(
        self, user_id: str, message_id: UUID, work: Callable[[Connection], Awaitable[ChangedMessage]]
    ) -> ChangedMessage:
        conversation_id = await messages.conversation_of(self._database, user_id, message_id)
        return await commit(self._database, work, conversation_id=conversation_id)

    def _publish_reactions(self, changed: ChangedMessage) -> None:
        message = changed.message
        update = {
            "conversation_id": message.conversation_id,
            "message_id": message.id,
            "rev": message.rev,
            "reactions": message.reactions,
        }
        self._publish_change("reaction_update", update, changed=changed)

    def _publish_change(self, event: str, payload: object, *, changed: ChangedMessage) -> None:
        self._publisher.change(event, payload, recipients=changed.recipients)
        rev_alone = {"id": changed.message.conversation_id, "rev": changed.message.rev}
        self._publisher.change("conversation_updated", rev_alone, recipients=changed.later_members)

    async def _commit_and_publish(
        self, connection: asyncpg.Connection[asyncpg.Record], batch: Sequence[sends.Send], lock_timeout_ms: int
    ) -> list[sends.SendOutcome]:
        # Runs in a task of the send queue's: a client that hangs up cannot come between these two steps.
        outcomes = await sends.send_batch(connection, batch, lock_timeout_ms=lock_timeout_ms)
        for sent in outcomes:
            if sent.message is not None:
                self._publisher.new_message(
                    sent.message, database_epoch=sent.database_epoch, recipients=sent.recipients
                )
        return outcomes


def _refusal(outcome: str) -> errors.GaplessError:
    match outcome:
        case "conflict":
            return errors.IdempotencyConflictError()
        case "revoked":
            return errors.UnauthorizedError()
        case "recipient_not_found":
            return errors.NotFoundError("There is no such recipient.")
        case "reply_not_found":
            return errors.InvalidRequestError(
                errors.FieldError("reply_to_id", "must be a message of the same conversation")
            )
        case _:
            return errors.NotFoundError()
