"""The events of a stream, for the documents: what `events.py` writes, described once in Pydantic.

Nothing here encodes or decodes on the way of a message. A test holds these models against real streams.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.schemas.conversations import Conversation
from app.schemas.messages import Message, Reaction

SSE_CURSOR = r"^[0-9a-z]{1,12}\.[0-9]{1,19}$"

Cursor = Annotated[str, Field(pattern=SSE_CURSOR, description="A place in your inbox: `<epoch>.<seq>`.")]


class _Payload(BaseModel):
    """Closed: a field that the code sends and the document lacks fails a test."""

    model_config = ConfigDict(extra="forbid")


class Connected(_Payload):
    """From here on nothing addressed to you is missed. Load by REST after it, not before."""

    user_id: str
    cursor: Cursor
    recovered: bool = Field(description="Whether the stream goes on from the cursor that you sent.")
    replayed: int = Field(description="How many messages follow that you missed.")
    heartbeat_seconds: float = Field(description="After twice this long without an event the connection is dead.")
    server_time: datetime


class MessageDeleted(_Payload):
    """A message was erased; its place stays, empty."""

    conversation_id: UUID
    message_id: UUID
    rev: int
    deleted_at: datetime


class ReactionUpdate(_Payload):
    """The reactions that a message now has: all of them, not the difference."""

    conversation_id: UUID
    message_id: UUID
    rev: int
    reactions: list[Reaction]


class ReadReceipt(_Payload):
    """How far a member has read. In groups over 100 members you get your own alone."""

    conversation_id: UUID
    user_id: str
    last_read_seq: int
    read_at: datetime


class TypingStatus(_Payload):
    """Whether somebody types. Not sent in groups over 100 members."""

    conversation_id: UUID
    user_id: str
    is_typing: bool
    expires_in: float = Field(description="Seconds after which it is no longer true.")


class ConversationNotice(_Payload):
    """That a conversation changed: read it by REST. Or that you are no longer in it (`role` null)."""

    id: UUID
    rev: int
    role: None = None


class OwnSettings(_Payload):
    """Your own settings of a conversation, to your own devices. Without a rev: it raises none."""

    id: UUID
    muted_until: datetime | None
    hidden: bool


class Heartbeat(_Payload):
    """The stream lives."""

    server_time: datetime
    head: int = Field(description="The seq up to which this stream has delivered.")


class Resync(_Payload):
    """Continuity cannot be proven. The stream goes on from `cursor`."""

    reason: str = Field(
        examples=["epoch", "too_far_behind", "retention", "change_missed"], description="For people; more may come."
    )
    scope: Literal["changes", "all"] = Field(
        description="`changes`: ask `changes` of every conversation you hold. `all`: load everything anew by REST."
    )
    cursor: Cursor


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ConnectedEvent(_Event):
    """The first event of a stream."""

    event: Literal["connected"]
    data: Connected


class NewMessageEvent(_Event):
    """A message, once and in order. The only event with an `id:`, and the only one that is replayed."""

    event: Literal["new_message"]
    id: Cursor
    data: Message


class MessageEditedEvent(_Event):
    """A message says something else now. Ignore it if its `rev` is not above the one you hold."""

    event: Literal["message_edited"]
    data: Message


class MessageDeletedEvent(_Event):
    """A message was erased."""

    event: Literal["message_deleted"]
    data: MessageDeleted


class ReactionUpdateEvent(_Event):
    """The reactions of a message changed."""

    event: Literal["reaction_update"]
    data: ReactionUpdate


class ReadReceiptEvent(_Event):
    """A member, or you on another device, read on."""

    event: Literal["read_receipt"]
    data: ReadReceipt


class TypingStatusEvent(_Event):
    """A member began or stopped to type."""

    event: Literal["typing_status"]
    data: TypingStatus


class ConversationUpdatedEvent(_Event):
    """Title, members or your own settings changed."""

    event: Literal["conversation_updated"]
    data: Conversation | ConversationNotice | OwnSettings


class HeartbeatEvent(_Event):
    """Every HEARTBEAT_SECONDS."""

    event: Literal["heartbeat"]
    data: Heartbeat


class ResyncEvent(_Event):
    """Something may have been missed, and this is what to do about it."""

    event: Literal["resync"]
    data: Resync


EVENTS: tuple[type[_Event], ...] = (
    ConnectedEvent,
    NewMessageEvent,
    MessageEditedEvent,
    MessageDeletedEvent,
    ReactionUpdateEvent,
    ReadReceiptEvent,
    TypingStatusEvent,
    ConversationUpdatedEvent,
    HeartbeatEvent,
    ResyncEvent,
)

StreamEvent = Annotated[
    ConnectedEvent
    | NewMessageEvent
    | MessageEditedEvent
    | MessageDeletedEvent
    | ReactionUpdateEvent
    | ReadReceiptEvent
    | TypingStatusEvent
    | ConversationUpdatedEvent
    | HeartbeatEvent
    | ResyncEvent,
    Field(discriminator="event"),
]
stream_event: TypeAdapter[Any] = TypeAdapter(StreamEvent)


def event_schemas() -> dict[str, Any]:
    """Give the JSON Schemas of all events by name, `StreamEvent` being one of the others."""
    schema = stream_event.json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    schemas: dict[str, Any] = schema.pop("$defs")
    schemas["StreamEvent"] = {"title": "StreamEvent", "description": "One event of the stream.", **schema}
    return schemas
