"""Writes down what happens, when it happens."""

from __future__ import annotations

import time

import orjson

from tests.history.records import Device, Event, History, Loaded, Message, Stream, parse_cursor
from tests.history.sse import Block

MAX_INTERNED = 20_000


class Recorder:
    """One per run. A message that goes to fifty devices is parsed and kept once."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._interned: dict[bytes, Message] = {}

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
        message, scope = None, ""
        if block.data is not None and block.name in {"new_message", "message_edited"}:
            message = self._message(block.data)
        elif block.data is not None and block.name == "resync":
            scope = orjson.loads(block.data)["scope"]
        name = block.name if block.data is not None else ""
        event = Event(time.monotonic(), stream.device, stream.number, name, epoch, seq, message, scope)
        self.history.events.append(event)
        return event

    def loaded(self, device: str, message: Message) -> None:
        self.history.loads.append(Loaded(time.monotonic(), device, message))

    def _message(self, data: bytes) -> Message:
        message = self._interned.get(data)
        if message is None:
            if len(self._interned) >= MAX_INTERNED:
                self._interned.clear()
            message = self._interned[data] = Message.from_json(orjson.loads(data))
        return message
