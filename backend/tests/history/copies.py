"""What a device shows: messages by conversation, brought up to date by events and by REST (protocol, 6.5)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tests.history.records import Message, reactions_of


@dataclass(slots=True)
class Copy:
    """One conversation; `rev` is what the device has seen everything up to."""

    rev: int = 0
    messages: dict[str, Message] = field(default_factory=dict)

    def take(self, message: Message) -> None:
        """Keep this state unless a newer one is here. One of the same rev is whole: what is here may lack an edit."""
        known = self.messages.get(message.id)
        if known is None or known.rev <= message.rev:
            self.messages[message.id] = message

    def take_json(self, data: dict[str, Any]) -> Message:
        message = Message.from_json(data)
        self.take(message)
        return message

    def take_deletion(self, data: dict[str, Any]) -> None:
        self._take_part(data, content="", is_deleted=True, reactions=())

    def take_reactions(self, data: dict[str, Any]) -> None:
        self._take_part(data, reactions=reactions_of(data["reactions"]))

    def has_seen(self, rev: int) -> bool:
        """Rise by one at a time; false where a step is missing, so that `changes` must be asked."""
        if rev == self.rev + 1:
            self.rev = rev
        return rev <= self.rev

    def forget_up_to(self, joined_seq: int) -> None:
        if joined_seq:
            self.messages = {key: one for key, one in self.messages.items() if one.seq > joined_seq}

    def _take_part(self, data: dict[str, Any], **part: Any) -> None:
        known = self.messages.get(data["message_id"])
        if known is not None and known.rev < data["rev"]:
            self.messages[known.id] = replace(known, rev=data["rev"], **part)


@dataclass(slots=True)
class Copies:
    """All conversations of one device."""

    by_id: dict[str, Copy] = field(default_factory=dict)
    # How far whom has read, by conversation and user.
    positions: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, conversation_id: str) -> Copy:
        copy = self.by_id.get(conversation_id)
        if copy is None:
            copy = self.by_id[conversation_id] = Copy()
        return copy

    def drop(self, conversation_id: str) -> None:
        self.by_id.pop(conversation_id, None)
        self.positions = {key: seq for key, seq in self.positions.items() if key[0] != conversation_id}

    def has_read(self, conversation_id: str, user: str, seq: int) -> None:
        """Positions only rise; who has sent a message has read up to it (protocol, 2.6)."""
        key = conversation_id, user
        if self.positions.get(key, -1) < seq:
            self.positions[key] = seq

    def messages(self) -> dict[str, Message]:
        return {key: message for copy in self.by_id.values() for key, message in copy.messages.items()}
