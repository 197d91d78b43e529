"""The two connections to Redis when this process itself is at fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.main import _kept_running
from app.observability import stats
from app.services.messaging import channels
from app.services.messaging.publisher import Publisher, RedisOutlet
from app.services.messaging.redis_pubsub import PubSub
from tests.faults.kit.link import Link
from tests.integration.test_pubsub import Listener, subscribed, until

pytestmark = pytest.mark.faults

BOB = channels.of_user("bob")


@pytest.fixture
async def links(valkey) -> AsyncIterator[tuple[PubSub, Publisher, RedisOutlet, Listener]]:
    """Both connections, kept running as in a server, and somebody who listens."""
    outlet = RedisOutlet(valkey.url)
    publisher = Publisher(outlet)
    pubsub = PubSub(valkey.url, publisher)
    outlet.on_trouble = pubsub.on_trouble
    async with _kept_running(outlet.run), _kept_running(pubsub.run):
        await until(lambda: pubsub.is_up)
        yield pubsub, publisher, outlet, await subscribed(pubsub, BOB)


async def test_after_a_defect_every_channel_is_asked_for_again(links, monkeypatch):
    """Protocol 5.4: work that ends by a defect starts again from nothing, not from what it believed."""
    _, publisher, _, listener = links
    failed = asyncio.Event()

    def fail(*_: object) -> None:
        failed.set()
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(publisher, "probe", fail)
        await asyncio.wait_for(failed.wait(), 5)
    await until(lambda: listener.times_live == 2)
    publisher.ephemeral("typing_status", {}, user_ids=["bob"])
    await until(lambda: listener.frames)


async def test_probes_that_do_not_arrive_cost_one_new_connection(links, monkeypatch):
    """Protocol 8.1: the end of the connection before is not taken for the end of the new one."""
    pubsub, publisher, _, listener = links
    before = stats.redis_reconnects
    with monkeypatch.context() as silent:
        silent.setattr(publisher, "probe", lambda *_: None)
        async with asyncio.timeout(10):
            while pubsub.is_up:
                await asyncio.sleep(0.01)
    await until(lambda: pubsub.is_up)
    await asyncio.sleep(0.3)
    assert stats.redis_reconnects == before + 1
    assert listener.times_live == 2


async def test_a_process_that_was_late_itself_does_not_give_redis_up(links, monkeypatch):
    """Protocol 8.1: after a second in which nothing was read, the answers are there to be read."""
    pubsub, publisher, outlet, listener = links
    troubles: list[float] = []
    monkeypatch.setattr(outlet, "on_trouble", lambda: troubles.append(time.monotonic()))
    for number in range(1, 4):
        # Queued and not yet written: the answer cannot be there when the timers of a late loop are run.
        publisher.ephemeral("typing_status", {}, user_ids=["bob"])
        time.sleep(1.2)  # this is the test
        await until(lambda wanted=number: len(listener.frames) == wanted)
        await asyncio.sleep(0.3)
    assert troubles == []
    assert pubsub.is_up
    assert listener.times_live == 1


async def test_a_connection_that_takes_long_to_make_is_not_given_up_for_what_waited_for_it(valkey):
    """Protocol 8.1: a frame's age is no answer that is late, or a busy server far from Redis never comes back."""
    async with Link(valkey.port) as link:
        link.delay_seconds = 0.2  # two ways and back until it is made; with one more it is over a second
        url = f"redis://127.0.0.1:{link.port}/0"
        outlet = RedisOutlet(url)
        publisher = Publisher(outlet)
        pubsub = PubSub(url, publisher)
        outlet.on_trouble = pubsub.on_trouble
        async with _kept_running(outlet.run), _kept_running(pubsub.run), publishing(publisher):
            await until(lambda: pubsub.is_up)
            before = stats.redis_reconnects
            link.cut()
            await until(lambda: not pubsub.is_up)
            await until(lambda: pubsub.is_up)
            await asyncio.sleep(1.5)  # an answer that is waited for too short would be missed by now
            assert pubsub.is_up
            assert stats.redis_reconnects == before + 1


@asynccontextmanager
async def publishing(publisher: Publisher) -> AsyncIterator[None]:
    """Publish without a pause."""

    async def publish() -> None:
        while True:
            publisher.ephemeral("typing_status", {}, user_ids=["bob"])
            await asyncio.sleep(0.02)

    task = asyncio.create_task(publish())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
