"""The promise as a model: after any interleaving, what was received equals the table.

One stream, a list for the inbox, a list for the wire. Hypothesis decides what Redis does to each frame
(on time, late, twice, lost), when the client is slow, when Redis reconnects and when PostgreSQL fails.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import events
from app.errors import UnavailableError
from app.inbox import Head, Missed
from app.services.messaging import frame_queue, sse_stream
from app.services.messaging.cursor import Cursor
from app.services.messaging.sse_stream import Stream
from tests.support.streams import parse_block

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PAGE_SIZE = 4
EPOCH = events.epoch_of("db", "bob")


class ListWire:
    """A wire that keeps what is written; full when told to be."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.readable = asyncio.Event()
        self.readable.set()
        self.has_ended = False

    def write(self, data: bytes, frame: events.Frame | events.Run | None = None) -> None:
        assert not self.has_ended, "written after the end"
        assert frame is None or data == frame.raw
        self.written.append(data)

    def is_full(self) -> bool:
        return not self.readable.is_set()

    async def drained(self) -> bool:
        await self.readable.wait()
        return not self.has_ended

    def end(self, abort_after_seconds: float) -> None:
        self.has_ended = True
        self.readable.set()


class World:
    """The database as lists, and the stream's owner."""

    def __init__(self) -> None:
        self.inbox: list[events.Message] = []
        self.change = 0
        self.is_down = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.wire = ListWire()
        self.stream = Stream("bob", self.wire, owner=self, issued_at=None, ends_at=0)

    @property
    def fetch_messages_after(self):
        return self._fetch

    async def _fetch(self, user_id: str, seq: int) -> Missed:
        if self.is_down:
            raise UnavailableError
        head, change = len(self.inbox), self.change
        rows = list(enumerate(self.inbox[seq : seq + PAGE_SIZE], start=seq + 1)) if seq < head else []
        await asyncio.sleep(0)  # the snapshot is older than the answer
        return Missed("db", head, change, None, rows)

    def spawn(self, work) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def release(self, stream: Stream) -> None:
        pass

    def commit_message(self) -> events.Frame:
        seq = len(self.inbox) + 1
        message = events.Message(
            uuid.UUID(int=seq), uuid.UUID(int=0), seq, seq, events.Person("ada", None, None), uuid.UUID(int=seq),
            f"m{seq}", None, [], NOW, None, None,
        )  # fmt: skip
        self.inbox.append(message)
        return _parsed(events.message_frame(EPOCH, seq, events.message_body(message)))

    def commit_change(self) -> events.Frame:
        self.change += 1
        return _parsed(events.change_frame(self.change, events.change_body("message_edited", {"n": self.change})))

    async def head_check(self) -> None:
        """What the heartbeat does at the end of every run, and at last heals everything."""
        head = Head("db", len(self.inbox), self.change, None)
        if self.stream.is_live and self.stream.seq < head.head:
            self.stream.must_read()
        self.stream.missed_change(head.change)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(200):
            if self.stream.is_live and not self.tasks:
                return
            await asyncio.sleep(0.001)
        raise AssertionError("the stream does not come to rest")


def _parsed(raw: bytes) -> events.Frame:
    frame = events.parse_frame(raw)
    assert frame is not None
    return frame


STEPS = st.lists(
    st.sampled_from(
        ["message", "message", "message lost", "message late", "message twice", "change", "change lost", "change late",
         "typing", "deliver late", "slow", "reads", "reconnect", "tick", "postgres down", "postgres up", "burst",
         "turn", "turn after a hole", "turn that was partly seen"]
    ),
    max_size=40,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(sse_stream, "LATE_FRAME_SECONDS", 0.002)
    monkeypatch.setattr(sse_stream, "RETRY_READ_SECONDS", (0.001, 0.001))
    monkeypatch.setattr(frame_queue, "MAX_QUEUE_BYTES", 1500)  # four messages: overflow is common
    monkeypatch.setattr(sse_stream, "PAGE_BYTES", 800)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=STEPS, start=st.integers(0, 3), after=STEPS)
def test_after_any_interleaving_what_was_received_equals_the_table(before, start, after):
    """Protocol 1.2, 5.1, 5.4, 5.5: `before` happens while the stream opens, `after` while it is open."""
    asyncio.run(_play(before, start, after))


async def _play(before: list[str], start: int, after: list[str]) -> None:
    world = World()
    stream = world.stream
    for _ in range(3):
        world.commit_message()
    late: list[events.Frame] = []
    # Subscribed, then the snapshot, then what happens meanwhile, then the replay: the order of section 5.
    stream.on_subscribed()
    missed = await world._fetch("bob", start)
    first_change = missed.change
    for step in before:
        _do(world, step, late)
    world.is_down = False
    opening = asyncio.ensure_future(stream.open(Cursor(EPOCH, start), missed, heartbeat_seconds=10))
    for step in after:
        _do(world, step, late)
        await asyncio.sleep(0)
    world.is_down = False
    world.wire.readable.set()
    await opening
    for frame in late:
        stream.on_frame(frame)
    await world.settle()
    if _is_something_lost([*before, *after]):
        await world.head_check()

    blocks = [parse_block(block + b"\n\n") for block in b"".join(world.wire.written).split(b"\n\n")[:-1]]
    seqs = [int(block.id.split(".")[1]) for block in blocks if block.id and block.name == "new_message"]
    assert seqs == list(range(start + 1, len(world.inbox) + 1))
    _check_changes(world, blocks, first_change)


def _is_something_lost(steps: list[str]) -> bool:
    """Whether only the head check can know: frames were lost, and no new subscription followed."""
    for step in reversed(steps):
        if step == "reconnect":
            return False
        if step.endswith(("lost", "hole")):
            return True
    return False


def _check_changes(world: World, blocks: list, first_change: int) -> None:
    """Every change was seen in order, or a `resync` stands where it is missing."""
    last, is_told = first_change, False
    for block in blocks:
        if block.name == "resync":
            assert block.json["scope"] == "changes"
            is_told = True
        elif block.name == "message_edited":
            number = int(block.comment or "0")
            assert number > last
            assert number == last + 1 or is_told
            last, is_told = number, False
    assert last == world.change or is_told


def _take_turn(world: World, step: str) -> None:
    """Several frames of one turn of the loop, joined as the Pub/Sub reader joins them."""
    if step == "turn after a hole":
        world.commit_message()
    frames = [world.commit_message() for _ in range(3)]
    if step == "turn that was partly seen":
        world.stream.on_frame(frames[0])
    frames += [world.commit_change(), world.commit_message()]
    joined, _ = events.read([frame.raw for frame in frames], 10_000)
    assert [type(part) for part in joined] == [events.Run, events.Frame, events.Frame]
    for part in joined:
        if isinstance(part, events.Run):
            world.stream.on_run(part)
        else:
            world.stream.on_frame(part)


def _do(world: World, step: str, late: list[events.Frame]) -> None:
    stream = world.stream
    match step:
        case "message":
            stream.on_frame(world.commit_message())
        case "burst":
            for _ in range(8):
                stream.on_frame(world.commit_message())
        case "turn" | "turn after a hole" | "turn that was partly seen":
            _take_turn(world, step)
        case "message lost":
            world.commit_message()
        case "message late":
            late.append(world.commit_message())
        case "message twice":
            frame = world.commit_message()
            stream.on_frame(frame)
            stream.on_frame(frame)
        case "change":
            stream.on_frame(world.commit_change())
        case "change lost":
            world.commit_change()
        case "change late":
            late.append(world.commit_change())
        case "typing":
            stream.on_frame(_parsed(events.ephemeral_frame("typing_status", {"a": 1})))
        case "deliver late":
            while late:
                stream.on_frame(late.pop())
        case "slow":
            world.wire.readable.clear()
        case "reads":
            world.wire.readable.set()
        case "reconnect":
            stream.on_subscribed()
        case "tick":
            stream.beat(NOW)
        case "postgres down":
            world.is_down = True
        case "postgres up":
            world.is_down = False
