"""Messages as requests ask for them and answers show them. Answers mirror `events.py` for the document."""

from __future__ import annotations

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field, model_validator

from app.schemas.text import Content, Id, RequestModel, UserId, refuse


class SendMessage(RequestModel):
    """A message to send: to a user, or into a conversation."""

    recipient_id: UserId | None = Field(None, description="A user; the direct conversation is opened if there is none.")
    conversation_id: Id | None = Field(None, description="A conversation you are a member of.")
    content: Content
    client_message_id: Id | None = Field(
        None, description="Your key of this send: repeat it, and the message is still sent once, for ever."
    )
    reply_to_id: Id | None = Field(None, description="A message of the same conversation.")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.recipient_id is None) == (self.conversation_id is None):
            raise refuse("needs exactly one of recipient_id and conversation_id")
        return self


class EditMessage(RequestModel):
    """What a message is to say."""

    content: Content


class Person(BaseModel):
    """A user as others see one."""

    id: str
    name: str | None
    avatar_url: str | None


class Reaction(BaseModel):
    """How many reacted with one emoji, and the first of them."""

    emoji: str
    count: int
    user_ids: list[str] = Field(description="At most 20, and at most 100 in all emoji of a message.")


class Message(BaseModel):
    """A message in its current state: the same in answers, `new_message` and `message_edited`."""

    id: UUID
    conversation_id: UUID
    seq: int = Field(description="Its place in the conversation, dense from 1.")
    rev: int = Field(description="The rev of its latest change; a lower one is older.")
    sender: Person
    client_message_id: UUID
    content: str = Field(description="Empty when deleted.")
    reply_to_id: UUID | None
    reactions: list[Reaction]
    created_at: datetime
    edited_at: datetime | None
    deleted_at: datetime | None


class HistoryPage(BaseModel):
    """A page of a conversation's messages, ascending."""

    items: list[Message]
    next_cursor: str | None = Field(
        description="The seq to ask from next: as `after` if you gave `after`, else as `before`."
    )
    has_more: bool
    rev: int = Field(
        description="The conversation's rev in the same snapshot. Not the rev of your copy: only an "
        "exhausted `changes` proves that nothing older is missing."
    )
