"""The promise over a database that forgets, goes back, fails over and loses users, as a model.

The stream and the head check are real. The client believes nothing but ids: each is one more than the one
before and means the message that this history holds there, or `resync` stands between.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import events
from app.errors import UnavailableError
from app.inbox import Head, Missed
from app.services.messaging import continuity, heartbeat, sse_stream
from app.services.messaging.cursor import Cursor
from app.services.messaging.heartbeat import Heartbeat
from app.services.messaging.sse_stream import Stream
from tests.model.test_stream_model import NOW, ListWire
from tests.support.streams import parse_block

PAGE_SIZE = 3
STEPS = st.lists(
    st.sampled_from(
        ["message", "message", "message", "lost", "lost", "late", "deliver late", "slow", "reads", "subscribed",
         "check", "check", "down", "up", "cut", "open", "rest", "retention", "hole", "restored", "failed over",
         "forgotten", "change", "change lost"]
    ),
    max_size=50,
)  # fmt: skip


class History:
    """One user's inbox in a database that does what databases should not."""

    def __init__(self) -> None:
        self.epoch = 0
        self.inbox: dict[int, events.Message] = {}
        self.head = 0
        self.change = 0
        self.is_known = True
        self.is_down = False
        self.meaning: dict[tuple[str, int], str] = {}  # what every id that was ever given stands for

    @property
    def user_epoch(self) -> str:
        return events.epoch_of(f"db{self.epoch}", "bob")

    def commit(self) -> events.Frame:
        self.is_known = True
        self.head += 1
        number = uuid.uuid4()
        message = events.Message(
            number, uuid.UUID(int=0), self.head, self.head, events.Person("ada", None, None), number, "x", None, [],
            NOW, None, None,
        )  # fmt: skip
        self.inbox[self.head] = message
        self.meaning[self.user_epoch, self.head] = str(number)
        return _parsed(events.message_frame(self.user_epoch, self.head, events.message_body(message)))

    def count(self) -> events.Frame:
        self.change += 1
        return _parsed(events.change_frame(self.change, events.change_body("message_edited", {"n": self.change})))

    def go_back(self) -> None:
        """Restore the state of a while ago: a new history from there."""
        self.epoch += 1
        self.head = max(0, self.head - 2)
        self.change = max(0, self.change - 1)
        self.inbox = {seq: message for seq, message in self.inbox.items() if seq <= self.head}
        for seq, message in self.inbox.items():
            self.meaning[self.user_epoch, seq] = str(message.id)

    def forget(self) -> None:
        """Restore the state of before the user was there."""
        self.epoch += 1
        self.inbox, self.head, self.change, self.is_known = {}, 0, 0, False

    async def fetch(self, user_id: str, seq: int) -> Missed | None:
        if self.is_down:
            raise UnavailableError
        epoch, head, change = f"db{self.epoch}", self.head, self.change
        rows = [(n, message) for n, message in sorted(self.inbox.items()) if n > seq][:PAGE_SIZE]
        is_known = self.is_known
        await asyncio.sleep(0)
        return Missed(epoch, head, change, None, rows) if is_known else None

    async def heads(self, user_ids: Any) -> dict[str, Head]:
        if self.is_down:
            raise UnavailableError
        head = Head(f"db{self.epoch}", self.head, self.change, None)
        is_known = self.is_known
        await asyncio.sleep(0)
        return {"bob": head} if is_known else {}


class Client:
    """Opens streams with its cursor, and checks every id."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.cursor: Cursor | None = None
        self.stream: Stream | None = None
        self.wire = ListWire()
        self.tasks: set[asyncio.Task[None]] = set()
        self.times_told = 0

    @property
    def fetch_messages_after(self):
        return self.history.fetch

    def spawn(self, work) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def release(self, stream: Stream) -> None:
        pass

    async def open(self) -> None:
        """What the endpoint does, and EventSource before it."""
        self.cut()
        self.wire = ListWire()
        stream = self.stream = Stream("bob", self.wire, owner=self, issued_at=None, ends_at=0)
        stream.on_subscribed()
        seq = self.cursor.seq if self.cursor is not None else events.NEWEST
        try:
            missed = await self.history.fetch("bob", seq)
            if missed is None:
                self.history.is_known = True
                missed = await self.history.fetch("bob", seq)
        except UnavailableError:
            self.cut()
            return
        assert missed is not None
        self.spawn(stream.open(self.cursor, missed, heartbeat_seconds=10))
        await asyncio.sleep(0)

    def cut(self) -> None:
        """The connection is lost, with whatever was written."""
        if self.stream is not None:
            self.stream.end("disconnected")
            self.read()
            self.stream = None

    def read(self) -> None:
        is_told = is_open = False
        for block in b"".join(self.wire.written).split(b"\n\n")[:-1]:
            event = parse_block(block + b"\n\n")
            is_open = is_open or event.name == "connected"
            if event.name == "resync" and event.json["scope"] == "all":
                is_told = True
                self.times_told += 1
            if event.id is None:
                continue
            epoch, _, number = event.id.partition(".")
            seen = Cursor(epoch, int(number))
            if event.name == "new_message":
                assert self.cursor is not None
                assert (seen.epoch, seen.seq) == (self.cursor.epoch, self.cursor.seq + 1), "a hole, or twice"
                assert event.json["id"] == self.history.meaning[epoch, seen.seq]
            elif not is_open and self.cursor is not None:
                assert seen == self.cursor  # where the replay starts
            else:
                assert is_told or not is_open, "moved in silence"
            is_told = False
            self.cursor = seen
        self.wire.written.clear()


def _parsed(raw: bytes) -> events.Frame:
    frame = events.parse_frame(raw)
    assert frame is not None
    return frame


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(sse_stream, "LATE_FRAME_SECONDS", 0.001)
    monkeypatch.setattr(sse_stream, "RETRY_READ_SECONDS", (0.001, 0.001))
    monkeypatch.setattr(continuity, "MAX_MISSED", 12)
    monkeypatch.setattr(sse_stream, "PAGE_BYTES", 700)
    monkeypatch.setattr(heartbeat, "GRACE_SECONDS", 0.002)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_becomes_of_the_database_no_id_is_skipped_in_silence(steps):
    """Protocol 1.2, 5.1, 5.4, 6.1, 6.2: at rest the client is where the inbox is."""
    asyncio.run(_play(steps))


async def _play(steps: list[str]) -> None:
    history = History()
    client = Client(history)
    check = Heartbeat(cast("Any", None), history.heads, heartbeat_seconds=10, is_degraded=lambda: False)
    late: list[events.Frame] = []
    for _ in range(3):
        history.commit()
    await client.open()
    for step in steps:
        await _do(step, history, client, check, late)
    history.is_down = False
    client.wire.readable.set()
    for frame in late:
        if client.stream is not None:
            client.stream.on_frame(frame)
    # Two heartbeats, and a client that comes back when it was ended.
    for _ in range(2):
        if client.stream is None or client.stream.has_ended:
            await client.open()
        await _rest(client)
        if client.stream is not None:
            await check._check([client.stream])
        await _rest(client)
    if client.stream is None or client.stream.has_ended:
        await client.open()
        await _rest(client)
    client.read()
    assert client.stream is not None
    assert client.stream.is_live
    assert client.cursor == Cursor(history.user_epoch, history.head)
    assert client.stream.change == history.change
    client.cut()


async def _do(step: str, history: History, client: Client, check: Heartbeat, late: list[events.Frame]) -> None:
    stream = client.stream
    match step:
        case "message" | "change":
            frame = history.commit() if step == "message" else history.count()
            if stream is not None:
                stream.on_frame(frame)
        case "lost":
            history.commit()
        case "change lost":
            history.count()
        case "late":
            late.append(history.commit())
        case "deliver late" if stream is not None:
            while late:
                stream.on_frame(late.pop())
        case "slow" if stream is not None:
            client.wire.readable.clear()
        case "reads":
            client.wire.readable.set()
        case "subscribed" if stream is not None:
            stream.on_subscribed()
        case "check" if stream is not None:
            await check._check([stream])
        case "down":
            history.is_down = True
        case "up":
            history.is_down = False
        case "cut":
            client.cut()
        case "open":
            await client.open()
        case "rest":
            await asyncio.sleep(0.003)
        case "retention":
            kept = sorted(history.inbox)[-4:]
            history.inbox = {seq: history.inbox[seq] for seq in kept}
        case "hole" if len(history.inbox) > 2:
            history.inbox.pop(sorted(history.inbox)[-2])
        case "restored":
            history.go_back()
        case "failed over":
            history.epoch += 1
            for seq, message in history.inbox.items():
                history.meaning[history.user_epoch, seq] = str(message.id)
        case "forgotten":
            history.forget()


async def _rest(client: Client) -> None:
    for _ in range(300):
        if client.stream is None or client.stream.has_ended or (client.stream.is_live and not client.tasks):
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the stream does not come to rest")
