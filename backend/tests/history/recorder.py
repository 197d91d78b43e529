"""Writes down what happens, when it happens."""

from __future__ import annotations

import time
import urllib.parse
from dataclasses import replace
from typing import Any

import orjson

from tests.history.records import (
    Alteration,
    AlterationKind,
    Call,
    Device,
    Event,
    History,
    Loaded,
    Message,
    Notice,
    ReadMark,
    Stream,
    parse_cursor,
)
from tests.history.sse import Block

MAX_INTERNED = 20_000
NOTICES = {
    "message_deleted",
    "reaction_update",
    "conversation_updated",
    "read_receipt",
    "typing_status",
    "heartbeat",
}
ALTERATIONS: dict[str, AlterationKind] = {
    "PATCH /messages/{}": "edit",
    "DELETE /messages/{}": "delete",
    "PUT /messages/{}/reactions/{}": "react",
    "DELETE /messages/{}/reactions/{}": "unreact",
}


class Recorder:
    """One per run. A message that goes to fifty devices is parsed and kept once."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._interned: dict[bytes, Message] = {}
        self._notices: dict[bytes, Notice] = {}

    def add_device(self, name: str, user: str) -> None:
        self.history.devices[name] = Device(name, user)

    def begin_stream(self, device: str, cursor: str | None) -> Stream:
        stream = Stream(len(self.history.streams), device, cursor, time.monotonic())
        self.history.streams.append(stream)
        return stream

    def block(self, stream: Stream, block: Block) -> Event | None:
        """Record one block; one that neither dispatches nor moves the cursor is no event."""
        if block.data is None and block.id is None:
            return None
        epoch, seq = parse_cursor(block.id)
        message, scope, notice = None, "", None
        if block.data is not None and block.name in {"new_message", "message_edited"}:
            message = self._message(block.data)
        elif block.data is not None and block.name == "resync":
            scope = orjson.loads(block.data)["scope"]
        elif block.data is not None and block.name in NOTICES:
            notice = self._notice(block.data)
        name = block.name if block.data is not None else ""
        event = Event(
            time.monotonic(), stream.device, stream.number, name, epoch, seq, message, scope, block.change, notice
        )
        self.history.events.append(event)
        return event

    def has_left(self, device: str) -> None:
        """This one will not be there in the end."""
        self.history.devices[device] = replace(self.history.devices[device], is_present=False)

    def has_returned(self, device: str) -> None:
        self.history.returns[device] = time.monotonic()

    def called(self, call: Call, path: str, body: Any, answer: Any) -> None:
        """Record one call; the sender of a message writes down the attempt, for it knows more."""
        if call.route == "POST /messages/send":
            return
        self.history.calls.append(call)
        if call.route in ALTERATIONS:
            _, _, message_id, *rest = path.split("/")
            content = body["content"] if body else urllib.parse.unquote(rest[-1]) if rest else ""
            self.history.alterations.append(
                Alteration(
                    ALTERATIONS[call.route], message_id, call.user, content, call.invoked_at, call.ended_at, call.status
                )
            )
        elif call.route == "POST /conversations/{}/read":
            known = answer["last_read_seq"] if call.status == 200 else None
            self.history.read_marks.append(
                ReadMark(call.conversation_id, call.user, body["seq"], call.invoked_at, call.ended_at, known)
            )

    def loaded(self, device: str, message: Message) -> None:
        self.history.loads.append(Loaded(time.monotonic(), device, message))

    def _notice(self, data: bytes) -> Notice:
        notice = self._notices.get(data)
        if notice is None:
            if len(self._notices) >= MAX_INTERNED:
                self._notices.clear()
            notice = self._notices[data] = notice_of(orjson.loads(data))
        return notice

    def _message(self, data: bytes) -> Message:
        message = self._interned.get(data)
        if message is None:
            if len(self._interned) >= MAX_INTERNED:
                self._interned.clear()
            message = self._interned[data] = Message.from_json(orjson.loads(data))
        return message


def notice_of(data: Any) -> Notice:
    if not isinstance(data, dict):  # Redis is shared: what looks like an ephemeral event may be a stranger's
        return Notice()
    return Notice(
        conversation_id=data.get("conversation_id") or data.get("id", ""),
        message_id=data.get("message_id", ""),
        user=data.get("user_id", ""),
        rev=data.get("rev"),
        seq=data.get("last_read_seq", data.get("head")) if "members" not in data else None,
    )
