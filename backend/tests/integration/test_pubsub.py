"""The Pub/Sub manager and the outlet, on a real Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from app import events
from app.services.messaging import channels
from app.services.messaging.publisher import Publisher, RedisOutlet
from app.services.messaging.redis_pubsub import PubSub
from tests.support.redis import redis_command


class Listener:
    """A receiver that keeps what it gets, and knows when its channel is live."""

    def __init__(self) -> None:
        self.frames: list[events.Frame] = []
        self.live = asyncio.Event()
        self.times_live = 0
        self.errors = 0
        self.fails = False

    def on_frame(self, frame: events.Frame) -> None:
        if self.fails:
            raise RuntimeError
        self.frames.append(frame)

    def on_run(self, run: events.Run) -> None:
        for frame in run.frames:
            self.on_frame(frame)

    def on_subscribed(self) -> None:
        self.times_live += 1
        self.live.set()

    def on_error(self) -> None:
        self.errors += 1


@pytest.fixture
async def redis(valkey):
    """A Pub/Sub manager and an outlet, both connected."""
    outlet = RedisOutlet(valkey.url)
    publisher = Publisher(outlet)
    pubsub = PubSub(valkey.url, publisher)
    tasks = [asyncio.create_task(outlet.run()), asyncio.create_task(pubsub.run())]
    async with asyncio.timeout(5):
        while not pubsub.is_up:
            await asyncio.sleep(0.01)
    yield pubsub, publisher, valkey.port
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def subscribed(pubsub: PubSub, name: bytes) -> Listener:
    listener = Listener()
    if not pubsub.subscribe(name, listener):
        await asyncio.wait_for(listener.live.wait(), 5)
    return listener


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


BOB = channels.of_user("bob")


async def test_what_is_published_after_the_acknowledgement_arrives(redis):
    """Protocol 5.4: not one frame is missed from then on, a thousand times."""
    pubsub, publisher, _ = redis
    for number in range(1000):
        listener = await subscribed(pubsub, BOB)
        publisher.ephemeral("typing_status", {"n": number}, user_ids=["bob"])
        await until(lambda heard=listener: heard.frames)
        pubsub.unsubscribe(BOB, listener)


async def test_churn_on_one_channel_ends_in_the_right_subscription(redis):
    """Subscribe and unsubscribe 2,000 times without waiting; what is wanted at the end is what there is."""
    pubsub, publisher, port = redis
    rng = random.Random(7)
    listeners: list[Listener] = []
    for _ in range(2000):
        if listeners and rng.random() < 0.5:
            pubsub.unsubscribe(BOB, listeners.pop())
        else:
            listeners.append(Listener())
            pubsub.subscribe(BOB, listeners[-1])
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    for listener in listeners:
        pubsub.unsubscribe(BOB, listener)
    last = await subscribed(pubsub, BOB)
    publisher.ephemeral("typing_status", {}, user_ids=["bob"])
    await until(lambda: last.frames)
    assert await redis_command(port, "PUBSUB NUMSUB user:bob") == [b"user:bob", 1]
    pubsub.unsubscribe(BOB, last)
    async with asyncio.timeout(5):
        while await redis_command(port, "PUBSUB CHANNELS user:*"):
            await asyncio.sleep(0.01)


async def test_a_killed_connection_is_subscribed_anew_and_everyone_is_told(redis):
    """Protocol 5.4: the second acknowledgement is the only sign that something was missed."""
    pubsub, publisher, port = redis
    listeners = [await subscribed(pubsub, channels.of_user(f"u{n}")) for n in range(600)]
    assert {listener.times_live for listener in listeners} == {1}
    await redis_command(port, "CLIENT KILL TYPE pubsub")
    await until(lambda: all(listener.times_live == 2 for listener in listeners))
    publisher.ephemeral("typing_status", {}, user_ids=[f"u{n}" for n in range(600)])
    await until(lambda: all(listener.frames for listener in listeners))


async def test_a_channel_that_redis_takes_away_is_asked_for_again(redis):
    """A subscription that ends without being asked is a loss: it comes back, and its receiver is told."""
    pubsub, _, _ = redis
    listener = await subscribed(pubsub, BOB)
    pubsub._on_acknowledged(BOB)  # an `unsubscribe` that answers no command of ours
    await until(lambda: listener.times_live == 2)


async def test_a_receiver_that_fails_costs_only_itself(redis):
    """Protocol 1.2: the reader never stops for one stream."""
    pubsub, publisher, _ = redis
    bad, good = await subscribed(pubsub, BOB), await subscribed(pubsub, BOB)
    bad.fails = True
    for _ in range(2):
        publisher.ephemeral("typing_status", {}, user_ids=["bob"])
    await until(lambda: len(good.frames) == 2)
    assert (bad.errors, bad.frames) == (1, [])


async def test_a_killed_publisher_connection_retries_what_was_not_answered(redis):
    """Protocol 5.4: a frame that was under way comes once more; twice is a duplicate, lost is healed."""
    pubsub, publisher, port = redis
    listener = await subscribed(pubsub, BOB)
    for number in range(50):
        publisher.ephemeral("typing_status", {"n": number}, user_ids=["bob"])
        if number % 10 == 5:
            await redis_command(port, "CLIENT KILL TYPE normal SKIPME yes")
        await asyncio.sleep(0.01)
    await until(lambda: b'"n":49' in listener.frames[-1].raw if listener.frames else False)
    numbers = [int(frame.raw.split(b'"n":')[1].split(b"}")[0]) for frame in listener.frames]
    assert sorted(set(numbers)) == list(range(50))
