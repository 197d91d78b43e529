"""A client that keeps copies of its conversations by the rules of the protocol, and nothing else.

It knows what it is told, the numbers its stream would check, and REST. It starts a copy with the newest
page of messages, so most copies hold the end of a conversation only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from app import events
from app.errors import NotFoundError
from app.events import Conversation
from tests.world import Told, World

FIRST_PAGE = 5
CHANGES_PAGE = 3  # small, so that most answers have more


def plain(value: object) -> Any:
    """Write a value as it stands on the wire."""
    return orjson.loads(events.to_json(value))


@dataclass(slots=True)
class Copy:
    """One conversation as one client holds it; `lowest_seq` is where its messages begin."""

    rev: int
    lowest_seq: int
    messages: dict[str, Any] = field(default_factory=dict)
    title: str | None = None
    roles: dict[str, str] = field(default_factory=dict)
    conversation_rev: int = 0
    positions: dict[str, int] = field(default_factory=dict)

    def take_message(self, message: Any) -> None:
        """Keep a message unless a newer state of it is here."""
        known = self.messages.get(message["id"])
        if message["seq"] >= self.lowest_seq and (known is None or known["rev"] <= message["rev"]):
            self.messages[message["id"]] = message

    def take_part(self, message_id: str, rev: int, **part: Any) -> None:
        """Change a part of a message, if that is newer."""
        known = self.messages.get(message_id)
        if known is not None and known["rev"] < rev:
            self.messages[message_id] = known | part | {"rev": rev}

    def take_conversation(self, conversation: Any) -> None:
        """Keep a title and members unless newer ones are here."""
        if conversation["rev"] >= self.conversation_rev:
            self.conversation_rev = conversation["rev"]
            self.title = conversation["title"]
            self.roles = {member["id"]: member["role"] for member in conversation["members"]}

    def take_position(self, user_id: str, seq: int) -> None:
        """A read position never goes back."""
        self.positions[user_id] = max(seq, self.positions.get(user_id, 0))

    def forget_up_to(self, joined_seq: int) -> None:
        """Drop what was sent before the client's user came back."""
        self.lowest_seq = max(self.lowest_seq, joined_seq + 1)
        self.messages = {key: one for key, one in self.messages.items() if one["seq"] >= self.lowest_seq}

    def raise_rev(self, rev: int) -> None:
        """Rise by one at a time: a step that was skipped was not seen."""
        if rev == self.rev + 1:
            self.rev = rev


class Client:
    """One user's client. While it is offline it hears nothing."""

    def __init__(self, world: World, user_id: str) -> None:
        self.world = world
        self.user_id = user_id
        self.is_online = False
        self.copies: dict[UUID, Copy] = {}
        self._head = 0
        self._change = 0

    async def connect(self) -> None:
        """Open the stream, then ask what was missed."""
        self.is_online = True
        self._head, self._change = await self.world.head_and_change(self.user_id)
        await self.refresh()

    async def check_head(self) -> None:
        """What the heartbeat does: notice that the last frames were lost."""
        if (self._head, self._change) != await self.world.head_and_change(self.user_id):
            await self.connect()

    async def hear(self, told: Told) -> None:
        """Take one frame as the stream hands it on: numbered ones once and in order, or a resync."""
        if told.kind == "ephemeral":
            await self._apply(told)
            return
        last = self._head if told.kind == "message" else self._change
        if told.number <= last:
            return
        if told.kind == "message":
            self._head = told.number
        else:
            self._change = told.number
        if told.number == last + 1:
            await self._apply(told)
        else:
            await self.refresh()

    async def refresh(self) -> None:
        """Bring every copy up to date by `changes`, and start those that are missing."""
        before = None
        while True:
            page = await self.world.conversations.list_conversations(self.user_id, hidden=False, before=before, limit=2)
            for conversation in page.items:
                if conversation.id not in self.copies:
                    await self._load(conversation)
            if page.next_cursor is None:
                break
            before = page.next_cursor
        for conversation_id in list(self.copies):
            await self._ask_changes(conversation_id)

    async def _load(self, conversation: Conversation) -> None:
        page = await self.world.conversations.list_messages(
            self.user_id, conversation.id, before=None, after=None, limit=FIRST_PAGE
        )
        # The rev of an empty copy's first page is the only one that a page may give.
        lowest = page.items[0].seq if page.has_more else 1
        copy = self.copies[conversation.id] = Copy(rev=page.rev, lowest_seq=lowest)
        for message in page.items:
            copy.take_message(plain(message))

    async def _ask_changes(self, conversation_id: UUID) -> None:
        copy = self.copies[conversation_id]
        has_more = True
        while has_more:
            try:
                news = await self.world.conversations.list_changes(
                    self.user_id, conversation_id, after_rev=copy.rev, limit=CHANGES_PAGE
                )
            except NotFoundError:
                del self.copies[conversation_id]
                return
            copy.forget_up_to(news.joined_seq)
            for message in news.items:
                assert message.seq > news.joined_seq
                copy.take_message(plain(message))
            copy.take_conversation(plain(news.conversation))
            copy.positions = {one.user_id: one.last_read_seq for one in news.read_positions}
            copy.rev = news.rev
            has_more = news.has_more

    async def _apply(self, told: Told) -> None:
        data = told.data
        conversation_id = UUID(data["id"] if told.event == "conversation_updated" else data["conversation_id"])
        copy = self.copies.get(conversation_id)
        if copy is None:
            if told.event in {"new_message", "conversation_updated"}:
                await self.refresh()
            return
        if told.event == "conversation_updated":
            if data.get("role", "") is None:
                del self.copies[conversation_id]
                return
            if "members" not in data:
                await self._ask_changes(conversation_id)
                return
            copy.take_conversation(data)
        elif told.event == "read_receipt":
            copy.take_position(data["user_id"], data["last_read_seq"])
        else:
            _apply_to_message(copy, told)
        if "rev" in data:
            if data["rev"] > copy.rev + 1:  # it has overtaken another
                await self._ask_changes(conversation_id)
            else:
                copy.raise_rev(data["rev"])


def _apply_to_message(copy: Copy, told: Told) -> None:
    data = told.data
    match told.event:
        case "new_message":
            copy.take_message(data)
            copy.take_position(data["sender"]["id"], data["seq"])
        case "message_edited":
            copy.take_message(data)
        case "message_deleted":
            gone = {"content": "", "reactions": [], "deleted_at": data["deleted_at"]}
            copy.take_part(data["message_id"], data["rev"], **gone)
        case "reaction_update":
            copy.take_part(data["message_id"], data["rev"], reactions=data["reactions"])
        case unknown:
            raise AssertionError(unknown)
