"""The publisher: what goes to many goes in slices, in order, and is not forgotten by a drain."""

from __future__ import annotations

import asyncio
import contextlib

import hiredis

from app.services.messaging.publisher import MAX_BACKLOG, SLICE, Publisher, RedisOutlet

MANY = [f"user{number}" for number in range(3 * SLICE + 5)]


class Channels:
    """The port to Redis: keeps which channels were published to, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def publish(self, channel: bytes, frame: bytes) -> None:
        del frame
        self.names.append(channel.decode().removeprefix("user:"))


async def test_a_message_to_few_leaves_in_the_same_turn():
    outlet = Channels()
    Publisher(outlet).ephemeral("typing_status", {}, user_ids=MANY[:SLICE])
    assert outlet.names == MANY[:SLICE]


async def test_slices_are_as_small_after_an_overflow_as_before():
    outlet = Channels()
    publisher = Publisher(outlet)
    crowd = [f"user{number}" for number in range(MAX_BACKLOG + 1000)]
    for _ in range(10):
        publisher.read_again(crowd[:1000])  # leaves a slice behind
        publisher.read_again(crowd)  # past the bound: everything at once
    publisher.read_again(crowd[: 20 * SLICE])
    turns: list[int] = []
    async with asyncio.timeout(5):
        while len(outlet.names) < 10 * (1000 + len(crowd)) + 20 * SLICE:
            before = len(outlet.names)
            await asyncio.sleep(0)
            turns.append(len(outlet.names) - before)
    assert max(turns) == SLICE


async def test_a_message_to_many_lets_others_run_and_what_is_published_later_stays_behind_it():
    outlet = Channels()
    publisher = Publisher(outlet)
    publisher.ephemeral("typing_status", {}, user_ids=MANY)
    publisher.read_again(["late"])
    seen: list[int] = []
    async with asyncio.timeout(5):
        while not seen or seen[-1] <= len(MANY):
            seen.append(len(outlet.names))
            await asyncio.sleep(0)
    assert seen == [SLICE, 2 * SLICE, 3 * SLICE, len(MANY) + 1]
    assert outlet.names == [*MANY, "late"]


async def test_one_that_cannot_be_published_holds_up_nothing_behind_it():
    outlet = Channels()
    publisher = Publisher(outlet)
    publisher.ephemeral("typing_status", {}, user_ids=[*MANY, "not a user id", *MANY])
    publisher.read_again(["late"])
    async with asyncio.timeout(5):
        while "late" not in outlet.names:
            await asyncio.sleep(0)
    assert outlet.names == [*MANY, "late"]
    publisher.read_again(["later"])
    assert outlet.names[-1] == "later"


async def test_whoever_publishes_faster_than_it_leaves_waits():
    outlet = Channels()
    publisher = Publisher(outlet)
    sent = 0
    while sent <= MAX_BACKLOG + SLICE:
        publisher.ephemeral("typing_status", {}, user_ids=MANY)
        sent += len(MANY)
    assert len(outlet.names) == sent, "without a turn of the loop in between"


async def test_a_drain_waits_for_the_whole_of_a_message_to_many(valkey):
    outlet = RedisOutlet(valkey.url)
    publisher = Publisher(outlet)
    reader, writer = await asyncio.open_connection("127.0.0.1", valkey.port)
    writer.write(b"PSUBSCRIBE user:user*\r\n")
    replies = hiredis.Reader()
    await reader.readuntil(b":1\r\n")
    running = asyncio.create_task(outlet.run())
    try:
        publisher.read_again(MANY)
        assert await outlet.drained(5)
        # Redis has answered all of them: what it has sent on is on its way.
        heard: list[str] = []
        async with asyncio.timeout(5):
            while len(heard) < len(MANY):
                replies.feed(await reader.read(65536))
                while (message := replies.gets()) is not False:
                    heard.append(message[2].decode().removeprefix("user:"))
        assert heard == MANY
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        writer.close()
