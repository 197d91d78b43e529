"""Fifty thousand clients vanish at every possible moment under a busy feed: nothing of them may stay.

Some do it to a real server through real sockets, as many as the time allows. The others do it to uvicorn's
real protocol, the real Pub/Sub manager and the real streams in this process, where each can be counted.
"""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest
import uvloop

from tests.hardening.in_process import InProcessServer
from tests.hardening.raw import Raw, descriptors, eventually, resident_mb, stream_request, subscriber_ids, watched
from tests.support.servers import new_user, token_for

REAL_SECONDS = 10.0
REAL_CLIENTS = 200
IN_PROCESS_DISCONNECTS = 50_000


@pytest.mark.e2e
@pytest.mark.slow
async def test_clients_that_vanish_from_a_busy_server_leave_nothing_behind(
    server, open_stream, valkey, record_property
):
    """Protocol 1.2: RST or FIN, before, in and after the head, in the middle of a chunk."""
    users = [new_user(f"u{number}") for number in range(40)]
    await server.know(*users)
    group = await server.group(users[0], *users[1:])
    requests = [stream_request(user, token=token_for(user)) for user in users]
    witness = await open_stream(server, users[0])
    subscriber = subscriber_ids(valkey.url)
    counts = {"disconnects": 0, "sent": 0}
    stop_at = time.monotonic() + REAL_SECONDS

    async def feed() -> None:
        while time.monotonic() < stop_at + 1:
            await server.post(users[0], group, f"{counts['sent']}")
            counts["sent"] += 1

    async def listen() -> None:
        while len(witness.contents) < counts["sent"] or time.monotonic() < stop_at + 2:
            try:
                await witness.next(1)
            except TimeoutError:
                continue

    async def vanish(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < stop_at:
            raw = await Raw.to(server, chance.choice(requests)[: chance.choice([20, None, None, None])])
            wanted = chance.choice([0, 0, 1, 40, 300, 420, 700, 1500])
            try:
                async with asyncio.timeout(chance.uniform(0.01, 1.5)):
                    await raw.reader.readexactly(wanted)
            except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                pass
            if chance.random() < 0.5:
                raw.reset()
            else:
                raw.writer.close()
            counts["disconnects"] += 1

    baseline = descriptors(server.pid)
    vanishing = [vanish(seed) for seed in range(REAL_CLIENTS)]
    await asyncio.gather(feed(), listen(), *vanishing)
    record_property("disconnects", counts["disconnects"])
    assert counts["disconnects"] > REAL_CLIENTS  # the storm took place

    await eventually(lambda: watched(valkey.url) == {users[0]}, 15, "only the witness is left")
    await eventually(lambda: descriptors(server.pid) <= baseline + 4, 15, "all descriptors are back")
    assert resident_mb(server.pid) < 400
    assert subscriber_ids(valkey.url) == subscriber  # the reader never lost its connection
    assert witness.contents == [f"{number}" for number in range(counts["sent"])]
    fresh = await open_stream(server, users[1])
    for text in ("one", "two", "three"):
        await server.post(users[0], group, text)
    assert [m["content"] for m in await fresh.messages(3, 3)] == ["one", "two", "three"]  # sooner than a head check
    assert "Traceback" not in server.log.read_text()
    assert "unexpected_error" not in server.log.read_text()


@pytest.mark.slow
def test_fifty_thousand_disconnects_leave_no_stream_no_channel_no_task_and_no_descriptor(record_property):
    """Protocol 1.2: counted exactly, on uvloop, as in production."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        record_property("disconnects", runner.run(_storm()))


async def _storm() -> int:
    server = InProcessServer([f"user-{number}" for number in range(50)])
    feeding = asyncio.create_task(_feed(server))
    await _vanish_many(server, random.Random(0), 500)
    baseline, tasks = descriptors(os.getpid()), len(asyncio.all_tasks())
    # Those who vanish may all be gone before anything is live, on a slow machine: this one stays and reads.
    witness = await server.client("user-0")
    await witness.until(b"event: connected")
    reading = asyncio.create_task(_read_all(witness))

    done = 500
    started = time.monotonic()
    chance = random.Random(1)
    while done < IN_PROCESS_DISCONNECTS and time.monotonic() - started < 45:
        done += await _vanish_many(server, chance, 500, staying=1)
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    witness.writer.close()
    await reading
    async with asyncio.timeout(5):
        while list(server.registry.all()) or server.protocols() or server.pubsub._channels:
            await asyncio.sleep(0.001)

    assert server.open_at_most > 50  # they were streams
    assert list(server.registry.all()) == []
    assert server.pubsub._channels == {}
    assert server.delivered_before_the_end > 20  # and there was something to deliver
    assert len(asyncio.all_tasks()) <= tasks
    assert descriptors(os.getpid()) <= baseline
    assert server.failures == []

    client = await server.client("user-0")
    await client.until(b"event: connected")
    start = server.head("user-0")
    for _ in range(5):
        server.send("user-0")
    body = await client.until(b".%d\nevent" % (start + 5))
    positions = [body.count(b".%d\nevent: new_message" % seq) for seq in range(start + 1, start + 5)]
    assert positions == [1, 1, 1, 1]
    client.writer.close()
    async with asyncio.timeout(5):
        while server.protocols():
            await asyncio.sleep(0.001)
    assert done == IN_PROCESS_DISCONNECTS
    return done


async def _read_all(client: Raw) -> None:
    try:
        while await client.reader.read(65536):
            pass
    except ConnectionError:
        pass


async def _feed(server: InProcessServer) -> None:
    chance = random.Random(2)
    while True:
        for _ in range(20):
            server.send(chance.choice(server.users))
        await asyncio.sleep(0.002)


async def _vanish_many(server: InProcessServer, chance: random.Random, count: int, *, staying: int = 0) -> int:
    await asyncio.wait_for(asyncio.gather(*(_vanish(server, chance) for _ in range(count))), 30)
    async with asyncio.timeout(10):
        while server.protocols() > staying or len(list(server.registry.all())) > staying:
            server.open_at_most = max(server.open_at_most, len(list(server.registry.all())))
            await asyncio.sleep(0.001)
    return count


async def _vanish(server: InProcessServer, chance: random.Random) -> None:
    half = chance.random() < 0.05
    client = await server.client(chance.choice(server.users), cut_request=half)
    if (moment := chance.random()) < 0.2:
        await asyncio.sleep(0)
    elif moment < 0.9:
        try:
            async with asyncio.timeout(chance.uniform(0.001, 0.05)):
                await client.reader.readexactly(chance.choice([1, 50, 350, 420, 700, 2000]))
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass
    server.open_at_most = max(server.open_at_most, len(list(server.registry.all())))
    if chance.random() < 0.5:
        client.writer.transport.abort()  # with bytes unread: ECONNRESET on the other side
    else:
        client.writer.close()
