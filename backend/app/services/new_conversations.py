"""The rules of making a conversation, inside the transaction that its caller commits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import uuid_utils.compat as uuid7

from app.db import conversations, members
from app.errors import FieldError, IdempotencyConflictError, InvalidRequestError
from app.services.conversation_updates import NO_UPDATE, Update, count_update

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from app.db.pool import Connection

MAX_NAMED_FIELDS = 100  # of a refusal: the rest is wrong in the same way


@dataclass(frozen=True, slots=True)
class NewConversation:
    """What a user asks to create; the creator need not be among `member_ids`."""

    kind: str
    member_ids: Sequence[str]
    title: str | None = None
    client_conversation_id: UUID | None = None

    @property
    def request_hash(self) -> bytes:
        """What makes a repeat the same request: kind, title, members in any order."""
        parts = (self.kind, self.title, sorted(set(self.member_ids)))
        return hashlib.sha256(orjson.dumps(parts)).digest()


@dataclass(frozen=True, slots=True)
class Opened:
    """The conversation that was asked for, found or made, and whom to tell."""

    conversation_id: UUID
    is_new: bool
    update: Update


def check(creator_id: str, new: NewConversation, *, max_members: int) -> None:
    """Refuse what cannot be, whoever exists. Raises InvalidRequestError."""
    others = set(new.member_ids) - {creator_id}
    if new.kind == "group":
        if len(others) >= max_members:
            raise _refused("member_ids", f"a group holds at most {max_members} members")
        return
    if len(others) != 1:
        raise _refused("member_ids", "must name the one other user of a direct conversation")
    if new.title is not None:
        raise _refused("title", "only a group has a title")


async def find_or_create(connection: Connection, creator_id: str, new: NewConversation) -> Opened:
    """Find what `new` has made before, or make it. Two who ask at once get the same one."""
    found = await _find(connection, creator_id, new)
    if found is not None:
        return found
    await _require_users(connection, new.member_ids)
    conversation_id = uuid7.uuid7()
    if not await _create(connection, creator_id, new, conversation_id=conversation_id):
        # Someone else was faster, and has committed: now it is there to be found.
        found = await _find(connection, creator_id, new)
        if found is None:
            raise IdempotencyConflictError
        return found
    everyone = {creator_id, *new.member_ids}
    owner_id = creator_id if new.kind == "group" else None
    await members.create(connection, conversation_id, sorted(everyone), owner_id=owner_id)
    update = await count_update(connection, conversation_id, rev=1, concerned=[creator_id])
    return Opened(conversation_id, is_new=True, update=update)


async def _find(connection: Connection, creator_id: str, new: NewConversation) -> Opened | None:
    if new.kind == "direct":
        direct_id = await conversations.direct_of(connection, creator_id, _other(creator_id, new))
        return None if direct_id is None else Opened(direct_id, is_new=False, update=NO_UPDATE)
    if new.client_conversation_id is None:
        return None
    stored = await conversations.group_of_key(connection, creator_id, new.client_conversation_id)
    if stored is None:
        return None
    if stored.request_hash != new.request_hash:
        raise IdempotencyConflictError
    return Opened(stored.conversation_id, is_new=False, update=NO_UPDATE)


async def _create(connection: Connection, creator_id: str, new: NewConversation, *, conversation_id: UUID) -> bool:
    if new.kind == "direct":
        return await conversations.create_direct(
            connection, conversation_id, creator_id=creator_id, other_id=_other(creator_id, new)
        )
    return await conversations.create_group(
        connection,
        conversation_id,
        creator_id=creator_id,
        title=new.title,
        client_conversation_id=new.client_conversation_id,
        request_hash=new.request_hash,
    )


async def _require_users(connection: Connection, member_ids: Sequence[str]) -> None:
    unknown = await conversations.unknown_users(connection, member_ids)
    if unknown:
        wrong = [place for place, user_id in enumerate(member_ids) if user_id in unknown]
        fields = [f"member_ids.{place}" for place in wrong[:MAX_NAMED_FIELDS]]
        raise InvalidRequestError(*(FieldError(field, "there is no such user") for field in fields))


def _other(creator_id: str, new: NewConversation) -> str:
    return next(user_id for user_id in new.member_ids if user_id != creator_id)


def _refused(field: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(FieldError(field, message))
