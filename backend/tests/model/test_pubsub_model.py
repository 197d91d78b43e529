"""The Pub/Sub manager as a model: what was published to a live channel arrives, or its receivers are told.

Redis is a set of channels and two queues. Hypothesis decides who comes and goes between a command and its
answer, when the connection is lost, and when Redis takes a channel away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from app import events
from app.services.messaging.publisher import Publisher
from app.services.messaging.redis_pubsub import PubSub

CHANNELS = [b"user:ada", b"user:bob"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come and go", "go", "publish", "publish", "turn", "redis", "reader", "reader",
                         "cut", "take away", "fail"]),
        st.sampled_from(CHANNELS),
    ),
    max_size=60,
)  # fmt: skip


class Redis:
    """One connection's end in Redis: takes commands and gives replies in order, when it is let."""

    def __init__(self) -> None:
        self.commands: deque[tuple[bytes, bytes]] = deque()
        self.replies: deque[list[Any]] = deque()
        self.channels: set[bytes] = set()

    def write(self, data: bytes) -> None:
        words: list[bytes] = []
        for line in data.split(b"\r\n")[:-1]:
            if line.startswith(b"*"):
                words = []
            elif not line.startswith(b"$"):
                words.append(line)
                if len(words) > 1:
                    self.commands.append((words[0].lower(), line))

    def work(self) -> None:
        if self.commands:
            command, name = self.commands.popleft()
            (self.channels.add if command == b"subscribe" else self.channels.discard)(name)
            self.replies.append([command, name, 1])

    def take_away(self, name: bytes) -> None:
        if name in self.channels:
            self.channels.discard(name)
            self.replies.append([b"unsubscribe", name, 0])

    def publish(self, name: bytes, frame: bytes) -> None:
        if name in self.channels:
            self.replies.append([b"message", name, frame])

    def abort(self) -> None:
        self.commands.clear()
        self.replies.clear()
        self.channels.clear()


class Receiver:
    """Knows whether it was told that its channel is live, and what it must then get."""

    def __init__(self) -> None:
        self.is_told = False
        self.times_told = 0
        self.got: set[bytes] = set()
        self.owed: dict[bytes, int] = {}  # frames published since, and how often it had been told by then
        self.fails = False

    def on_frame(self, frame: events.Frame) -> None:
        if self.fails:
            raise RuntimeError
        self.got.add(frame.raw)

    def on_run(self, run: events.Run) -> None:
        for frame in run.frames:
            self.on_frame(frame)

    def on_subscribed(self) -> None:
        self.is_told = True
        self.times_told += 1

    def on_error(self) -> None:
        pass


@settings(max_examples=400, deadline=None)
@given(steps=STEPS)
def test_what_is_published_to_a_live_channel_arrives_or_its_receivers_are_told(steps):
    """Protocol 5.4: the acknowledgement of the latest SUBSCRIBE is the moment from which nothing is missed."""
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, bytes]]) -> None:
    pubsub = PubSub("redis://unused", Publisher(cast("Any", None)))
    redis = _connect(pubsub)
    present: dict[bytes, list[Receiver]] = {name: [] for name in CHANNELS}
    for number, (step, name) in enumerate(steps):
        match step:
            case "come" | "come and go":
                receiver = Receiver()
                present[name].append(receiver)
                if pubsub.subscribe(name, receiver):
                    receiver.on_subscribed()
                if step == "come and go":
                    pubsub.unsubscribe(name, present[name].pop())
            case "go" if present[name]:
                pubsub.unsubscribe(name, present[name].pop(0))
            case "publish":
                frame = events.ephemeral_frame("typing_status", {"n": number})
                redis.publish(name, frame)
                for receiver in present[name]:
                    if receiver.is_told:
                        receiver.owed[frame] = receiver.times_told
            case "fail" if present[name]:
                present[name][0].fails = True
            case "turn":
                await asyncio.sleep(0)
            case "redis":
                redis.work()
            case "reader" if redis.replies:
                _read(pubsub, redis)
            case "take away":
                redis.take_away(name)
            case "cut":
                pubsub._forget_connection()
                redis = _connect(pubsub)
        _leave_failed(pubsub, present)
    await _settle(pubsub, redis)
    _leave_failed(pubsub, present)
    await _settle(pubsub, redis)

    wanted = {name for name in CHANNELS if present[name]}
    assert redis.channels == wanted
    assert set(pubsub._channels) == wanted
    for name in wanted:
        for receiver in present[name]:
            assert receiver.times_told
            for frame, times_told in receiver.owed.items():
                assert frame in receiver.got or receiver.times_told > times_told


def _connect(pubsub: PubSub) -> Redis:
    redis = Redis()
    pubsub._link = cast("Any", redis)
    pubsub._changed = dict.fromkeys(pubsub._channels)
    pubsub._flush()
    return redis


def _read(pubsub: PubSub, redis: Redis) -> None:
    pubsub._on_reply(redis.replies.popleft())


def _leave_failed(pubsub: PubSub, present: dict[bytes, list[Receiver]]) -> None:
    """What has failed is out already; the model forgets it, too."""
    for name, receivers in present.items():
        channel = pubsub._channels.get(name)
        inside = channel.receivers if channel is not None else set()
        present[name] = [receiver for receiver in receivers if not receiver.fails or receiver in inside]


async def _settle(pubsub: PubSub, redis: Redis) -> None:
    for _ in range(300):
        await asyncio.sleep(0)
        redis.work()
        if redis.replies:
            _read(pubsub, redis)
    assert not redis.commands
    assert not redis.replies
