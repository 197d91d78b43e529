"""Conversations as requests ask for them and answers show them. Answers mirror `events.py`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from annotated_types import MaxLen
from pydantic import BaseModel, Field

from app.schemas.messages import Message
from app.schemas.text import Flag, Id, RequestModel, Seq, Time, Title, UserId

MAX_MEMBER_IDS = 10_000  # the most that MAX_GROUP_MEMBERS may be set to

Role = Literal["owner", "member"]
Kind = Literal["direct", "group"]


class CreateConversation(RequestModel):
    """A conversation to open; you are a member of it whether or not you name yourself."""

    kind: Kind
    title: Title | None = Field(None, description="Groups only.")
    member_ids: Annotated[list[UserId], MaxLen(MAX_MEMBER_IDS)] = Field(
        description="Users known here; for a direct conversation the one other."
    )
    client_conversation_id: Id | None = Field(
        None,
        description="Your key of this request: repeat it, and the group is still made once, for ever. "
        "A direct conversation needs none, as two users have one.",
    )


class RenameConversation(RequestModel):
    """The new title; null removes it."""

    title: Title | None


class PutMember(RequestModel):
    """The role to have; left out, a member keeps the present one and a new one is a member."""

    role: Role | None = None


class ChangeOwnSettings(RequestModel):
    """What to change; what is left out stays."""

    muted_until: Time | None = Field(None, description="Null unmutes.")
    hidden: Flag = Field(default=False, description="A new message shows the conversation again.")


class MarkRead(RequestModel):
    """Up to where you have read."""

    seq: Seq


class SetTyping(RequestModel):
    """Whether you are typing."""

    is_typing: Flag


class Member(BaseModel):
    """A member as the others see one."""

    id: str
    name: str | None
    avatar_url: str | None
    role: Role
    last_read_seq: int


class Conversation(BaseModel):
    """A conversation as you see it."""

    id: UUID
    kind: Kind
    title: str | None
    last_seq: int
    rev: int
    last_message: Message | None = Field(description="Null if it was sent before you joined.")
    unread: int
    last_read_seq: int
    role: Role
    muted_until: datetime | None
    hidden: bool
    member_count: int
    members: list[Member] = Field(description="The first 20 by id. Go on with `members?after=` the last id.")


class ConversationsPage(BaseModel):
    """A page of your conversations, the most recently active first."""

    items: list[Conversation]
    next_cursor: str | None = Field(description="Give it as `before` to go on.")
    has_more: bool


class MembersPage(BaseModel):
    """A page of members, by id."""

    items: list[Member]
    next_cursor: str | None = Field(description="Give it as `after` to go on.")
    has_more: bool


class ReadState(BaseModel):
    """How far you have read, and how many messages come after."""

    conversation_id: UUID
    last_read_seq: int
    unread: int


class ReadPosition(BaseModel):
    """How far a member has read."""

    user_id: str
    last_read_seq: int


class Changes(BaseModel):
    """The latest state of everything that changed after a rev, from one snapshot."""

    rev: int = Field(
        description="Ask from here next: the last item's rev while `has_more`, else the conversation's. "
        "Lower than what you asked from: the database was restored, load the conversation anew."
    )
    joined_seq: int = Field(description="Drop what your copy holds up to this seq: you left, and came back after it.")
    conversation: Conversation
    read_positions: list[ReadPosition] = Field(description="Of all members; in groups over 100 members your own alone.")
    items: list[Message] = Field(description="By rev; new, edited and deleted ones alike.")
    has_more: bool
