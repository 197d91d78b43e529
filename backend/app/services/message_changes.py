"""The rules of changes to messages, each inside the transaction that its caller commits.

Whoever may not see the message gets NotFoundError, who may only see it ForbiddenError. A change that
changes nothing takes no rev and has nobody to tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.db import changes, members, messages
from app.errors import FieldError, ForbiddenError, InvalidRequestError

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.changes import Counted
    from app.db.pool import Connection
    from app.events import Message

MAX_EMOJI_PER_MESSAGE = 20


@dataclass(frozen=True, slots=True)
class ChangedMessage:
    """A message as a change left it, and whom to tell.

    Members who joined after the message count the change like all others, but are told no more than
    that there was one: they may not read the message.
    """

    message: Message
    recipients: Counted = ()
    later_members: Counted = ()


async def edit(connection: Connection, user_id: str, message_id: UUID, *, content: str) -> ChangedMessage:
    """Change what one's own message says. A tombstone stays one."""
    message = (await messages.lock_message(connection, user_id, message_id)).message
    if message.sender.id != user_id:
        raise ForbiddenError("Only its sender may edit a message.")
    if message.deleted_at is not None:
        raise ForbiddenError("A deleted message cannot be edited.")
    if message.content == content:
        return ChangedMessage(message)
    return await _counted(connection, await messages.edit(connection, message, content))


async def delete(connection: Connection, user_id: str, message_id: UUID) -> ChangedMessage:
    """Erase one's own message, or as an owner anyone's. Done twice it is done once."""
    found = await messages.lock_message(connection, user_id, message_id)
    message = found.message
    if message.sender.id != user_id and not (found.kind == "group" and found.role == "owner"):
        raise ForbiddenError("Only its sender or an owner of the group may delete a message.")
    if message.deleted_at is not None:
        return ChangedMessage(message)
    return await _counted(connection, await messages.delete(connection, message))


async def react(connection: Connection, user_id: str, message_id: UUID, *, emoji: str) -> ChangedMessage:
    """Give a message an emoji. Given twice it is there once."""
    message = (await messages.lock_message(connection, user_id, message_id)).message
    if message.deleted_at is not None:
        raise ForbiddenError("A deleted message takes no reactions.")
    present = await messages.emoji_of(connection, message, user_id)
    if present.get(emoji):
        return ChangedMessage(message)
    if emoji not in present and len(present) >= MAX_EMOJI_PER_MESSAGE:
        raise InvalidRequestError(
            FieldError("emoji", f"a message carries at most {MAX_EMOJI_PER_MESSAGE} different ones")
        )
    reacted = await messages.react(connection, message, user_id, emoji=emoji)
    return await _counted(connection, reacted)


async def unreact(connection: Connection, user_id: str, message_id: UUID, *, emoji: str) -> ChangedMessage:
    """Take an emoji back. Taken twice it is gone once."""
    message = (await messages.lock_message(connection, user_id, message_id)).message
    present = await messages.emoji_of(connection, message, user_id)
    if not present.get(emoji):
        return ChangedMessage(message)
    unreacted = await messages.unreact(connection, message, user_id, emoji=emoji)
    return await _counted(connection, unreacted)


async def _counted(connection: Connection, message: Message) -> ChangedMessage:
    later = await members.joined_since(connection, message.conversation_id, message.seq)
    counted = await changes.count_change(connection, message.conversation_id)
    return ChangedMessage(
        message,
        recipients=[(user_id, change) for user_id, change in counted if user_id not in later],
        later_members=[(user_id, change) for user_id, change in counted if user_id in later],
    )
