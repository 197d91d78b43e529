"""Redis is shared: what a stranger publishes must cost nobody a message, nor the process its reader."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
import redis

from app.observability import stats
from app.services.messaging import channels
from app.services.messaging.publisher import Publisher, RedisOutlet
from app.services.messaging.redis_pubsub import PubSub
from tests.hardening.raw import eventually, redis_of, subscriber_ids, watched
from tests.support.servers import new_user

pytestmark = pytest.mark.e2e

CANARY = b"c4n4ry"
FRAME = b'event: new_message\ndata: {"content":"' + CANARY + b'"}\n\n'
NOT_FRAMES = {
    "nothing": b"",
    "a text": CANARY,
    "json": b'{"type":"new_message","content":"' + CANARY + b'"}',
    "binary": bytes(range(256)) * 8,
    "5 MB": b"event: typing_status\ndata: " + CANARY * 900_000 + b"\n\n",
    "just 64 KB": b"event: typing_status\ndata: " + b"x" * (64 * 1024 - 29) + b"\n\n",
    "no blank line": b"event: typing_status\ndata: " + CANARY + b"\n",
    "two blank lines": b"event: typing_status\ndata: 1\n\n\n",
    "two events": b"event: typing_status\ndata: 1\n\nevent: typing_status\ndata: " + CANARY + b"\n\n",
    "a carriage return": b"event: typing_status\ndata: 1\r\ndata: " + CANARY + b"\n\n",
    "only carriage returns": b"event: typing_status\rdata: " + CANARY + b"\r\r",
    "NUL": b"event: typing_status\ndata: \0" + CANARY + b"\n\n",
    "no data": b"event: typing_status\n\n",
    "an unknown field": b"foo: 1\ndata: " + CANARY + b"\n\n",
    "data first": b"data: " + CANARY + b"\nevent: typing_status\n\n",
    "retry": b"event: typing_status\nretry: 1\ndata: 1\n\n",
    "an id hidden behind an event": b"event: typing_status\nid: a.1\ndata: 1\n\n",
    "an id behind data": b"event: typing_status\ndata: 1\nid: a.1\n\n",
    "an empty id behind data": b"event: typing_status\ndata: 1\nid\n\n",
    "a second id": b"id: a.1\nid: a.2\n" + FRAME,
    "an id without a seq": b"id: a\n" + FRAME,
    "an id with a negative seq": b"id: a.-1\n" + FRAME,
    "an id with a long seq": b"id: a.99999999999999999999\n" + FRAME,
    "an id with a long epoch": b"id: aaaaaaaaaaaaa.1\n" + FRAME,
    "an id with blanks": b"id: a.1 \n" + FRAME,
    "an id with underscores": b"id: a.1_0\n" + FRAME,
    "a cursor alone": b"id: a.1\n\n",
    "a byte order mark": b"\xef\xbb\xbf" + FRAME,
    "a comment": b": hello\n" + FRAME,
    "a change with a sign": b":+1\n" + FRAME,
    "a change with a long number": b":99999999999999999999\n" + FRAME,
}
CONTROLS = [
    b"!",
    b"!close",
    b"!close ",
    b"!close x",
    b"!close -1",
    b"!close 1e9",
    b"!close 99999999999999999999",
    b"!close 1 2",
    b"!close 0",
    b"!close \xd9\xa1",
    b"!probe",
    b"!probe 1",
    b"!probe " + b"9" * 100_000,
    b"!" + os.urandom(5000),
    b"!unknown " + CANARY,
]


class Listener:
    """A receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.is_live = asyncio.Event()

    def on_frame(self, frame) -> None:
        self.frames.append(frame.raw)

    def on_run(self, run) -> None:
        for frame in run.frames:
            self.on_frame(frame)

    def on_subscribed(self) -> None:
        self.is_live.set()

    def on_error(self) -> None:
        raise AssertionError("nothing failed")


@pytest.fixture
async def listening(valkey):
    """A PubSub of this process on the test's Valkey, with one listener for `bob`."""
    outlet = RedisOutlet(valkey.url)
    pubsub = PubSub(valkey.url, Publisher(outlet))
    running = [asyncio.create_task(work.run()) for work in (outlet, pubsub)]
    listener = Listener()
    pubsub.subscribe(channels.of_user("bob"), listener)
    await asyncio.wait_for(listener.is_live.wait(), 5)
    try:
        yield listener
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_what_is_not_a_frame_is_dropped_and_counted(listening, valkey):
    """Protocol 3.6: one by one, each followed by a frame that arrives."""
    good = b"event: typing_status\ndata: {}\n\n"
    wrong = {}
    with redis_of(valkey.url) as client:
        for name, payload in NOT_FRAMES.items():
            dropped = stats.frames_dropped
            listening.frames.clear()
            client.publish("user:bob", payload)
            client.publish("user:bob", good)
            await eventually(lambda: good in listening.frames, 5, f"the frame behind {name}")
            if listening.frames != [good] or stats.frames_dropped != dropped + 1:
                wrong[name] = listening.frames, stats.frames_dropped - dropped
    assert wrong == {}


async def test_poison_reaches_no_client_and_real_messages_still_come_once_and_in_order(server, open_stream, valkey):
    """Protocol 1.2, 3.6: also numbered frames of other epochs and far beyond the head, and false controls."""
    ada, bob, eve = new_user("ada"), new_user("bob"), new_user("eve")
    await server.know(ada, bob, eve)
    stream, other = await open_stream(server, bob), await open_stream(server, eve)
    await server.send(ada, bob, "0")
    await stream.messages(1)
    epoch = stream.cursor.split(".")[0].encode()
    subscriber = subscriber_ids(valkey.url)
    numbered = [
        b"id: %b.%d\n" % (epoch, 10**9) + FRAME,
        b"id: %b.9223372036854775807\n" % epoch + FRAME,
        b"id: %b.9999999999999999999\n" % epoch + FRAME,
        b"id: %b.1\n" % epoch + FRAME,
        b"id: %b.0\n" % epoch + FRAME,
        b"id: zzzz.2\n" + FRAME,
        b"id: ZZZZ.2\n" + FRAME,
        b"id: %b.2\n" % other.cursor.split(".")[0].encode() + FRAME,
    ]
    number = 0
    with redis_of(valkey.url) as client:
        for poison in [*numbered, *NOT_FRAMES.values(), *CONTROLS]:
            client.publish(f"user:{bob}", poison)
            number += 1
            await server.send(ada, bob, f"{number}")
            for name in client.execute_command("PUBSUB", "CHANNELS", "probe:*"):
                client.publish(name, poison)
        for poison in numbered:  # and all at once: more than a stream queues
            for _ in range(300):
                client.publish(f"user:{bob}", poison)
        number += 1
        await server.send(ada, bob, f"{number}")
    await stream.messages(number, 20)
    assert stream.contents == [f"{n}" for n in range(number + 1)]
    assert stream.seqs == list(range(1, number + 2))
    assert CANARY not in bytes(stream.raw)
    await server.send(ada, eve, "others hear nothing of it")
    assert len(await other.messages(1)) == 1
    assert {event.name for event in other.events} <= {"message", "connected", "new_message", "heartbeat"}
    assert subscriber_ids(valkey.url) == subscriber  # the reader never lost its connection
    assert "Traceback" not in server.log.read_text()


async def test_a_change_number_that_was_never_given_does_not_silence_the_changes_that_follow(
    start_server, open_stream, valkey
):
    """Protocol 3.3, 3.6, 6.3: far ahead it is dropped; the next one is found out by the head check."""
    server = await start_server(heartbeat_seconds=1)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    message = await server.send(ada, bob, "draft")
    await stream.messages(1)

    async def edit(text: str) -> None:
        status, _ = await server.call("PATCH", f"/messages/{message['id']}", user=ada, json={"content": text})
        assert status == 200

    with redis_of(valkey.url) as client:
        client.publish(f"user:{bob}", b":999999\n" + FRAME)
        assert (await stream.until("resync")).json["scope"] == "changes"
        await edit("one")
        assert (await stream.until("message_edited")).json["content"] == "one"
        client.publish(f"user:{bob}", b":2\n" + FRAME)  # the number that the next change will have
        await stream.until("new_message")
        assert (await stream.until("resync")).json["scope"] == "changes"
        await edit("two")
        assert (await stream.until("message_edited")).json["content"] == "two"


async def test_a_close_of_one_user_ends_that_users_streams_and_no_other(server, open_stream, valkey):
    """Protocol 9.3: a stream that ends while its frame is handed out must not cost the reader its connection."""
    ada, bob, eve = new_user("ada"), new_user("bob"), new_user("eve")
    await server.know(ada, bob, eve)
    doomed = [await open_stream(server, bob) for _ in range(3)] + [await open_stream(server, ada)]
    other = await open_stream(server, eve)
    subscriber = subscriber_ids(valkey.url)
    with redis_of(valkey.url) as client:
        for user in (bob, ada):
            client.publish(f"user:{user}", b"!close %d" % (time.time() + 5))
    for stream in doomed:
        await stream.until_end(5)
    await eventually(lambda: watched(valkey.url) == {eve}, 3, "only the other is left")
    await server.send(ada, eve, "live")
    assert [m["content"] for m in await other.messages(1, 3)] == ["live"]
    assert subscriber_ids(valkey.url) == subscriber
    assert "resync" not in {event.name for event in other.events}


async def test_a_redis_that_refuses_our_channels_is_asked_with_pauses_and_messages_still_arrive(
    server, open_stream, valkey
):
    """Protocol 8.1: an ACL that forbids the probe must not become a storm of connections."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    with redis_of(valkey.url) as client:
        client.execute_command("ACL", "SETUSER", "default", "resetchannels", "&user:*")
        _cut_subscribers(client)
        before = int(client.info("stats")["total_connections_received"])
        await server.send(ada, bob, "without the probe")
        await stream.messages(1, 5)
        await asyncio.sleep(3)
        attempts = int(client.info("stats")["total_connections_received"]) - before
        client.execute_command("ACL", "SETUSER", "default", "allchannels")
    assert 1 < attempts < 40
    await eventually(lambda: watched(valkey.url) == {bob}, 8, "the subscription is back")
    await server.send(ada, bob, "with it")
    assert [m["content"] for m in await stream.messages(1, 5)] == ["with it"]


async def test_floods_of_subscriptions_and_of_foreign_channels_disturb_nobody(server, open_stream, valkey):
    """Protocol 1.2: others may use the same Redis."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    with redis_of(valkey.url) as client:
        listeners = [client.pubsub() for _ in range(20)]
        for number, listener in enumerate(listeners):
            listener.subscribe(*(f"user:stranger-{number}-{n}" for n in range(500)))
            listener.psubscribe("user:*", "probe:*")
        with client.pipeline(transaction=False) as flood:
            for number in range(20_000):
                flood.publish(f"user:stranger-1-{number % 500}", b"x" * 100)
            flooding = asyncio.to_thread(flood.execute)
            sending = [server.send(ada, bob, f"{number}") for number in range(20)]
            await asyncio.gather(flooding, *sending)
        assert len(await stream.messages(20, 10)) == 20
        assert stream.seqs == list(range(1, 21))
        for listener in listeners:
            listener.close()


def _cut_subscribers(client: redis.Redis) -> None:
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
