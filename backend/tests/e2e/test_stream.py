"""The stream on real servers: what arrives, in which order, with which bytes."""

from __future__ import annotations

import asyncio
import json
import re

import httpx2
import pytest

from tests.support.servers import new_user, token_for

pytestmark = pytest.mark.e2e


async def test_the_walk_of_the_readme(server, open_stream):
    """Protocol 4.1, 4.4, 5.1: connected, live, cut, three missed, exactly those, then live again."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    await server.send(ada, bob, "first")
    first = await stream.until("new_message")
    assert re.fullmatch(r"[0-9a-z]{1,12}\.1", first.id)
    stream.cut()
    for text in ("two", "three", "four"):
        await server.send(ada, bob, text)
    await stream.connected()
    assert stream.events[-1].json["recovered"] is True
    assert stream.events[-1].json["replayed"] == 3
    assert [m["content"] for m in await stream.messages(3)] == ["two", "three", "four"]
    await server.send(ada, bob, "five")
    assert [m["content"] for m in await stream.messages(1)] == ["five"]
    assert stream.seqs == [1, 2, 3, 4, 5]


async def test_a_stream_begins_with_retry_then_the_cursor_then_connected(server, open_stream):
    """Protocol 4.1: byte for byte."""
    bob = new_user("bob")
    stream = await open_stream(server, bob)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["cache-control"] == "no-cache, no-transform"
    retry, cursor, connected = (event.raw for event in stream.events)
    assert re.fullmatch(rb"retry: [1-4]\d{3}\n\n", retry)
    assert re.fullmatch(rb"id: [0-9a-z]{12}\.0\n\n", cursor)
    assert re.fullmatch(
        rb'event: connected\ndata: \{"user_id":"%b","cursor":"[0-9a-z]{12}\.0","recovered":false,"replayed":0,'
        rb'"heartbeat_seconds":10\.0,"server_time":"[^"]+Z"\}\n\n' % bob.encode(),
        connected,
    )


async def test_every_event_of_the_table_has_exactly_its_id_and_data(start_server, open_stream):
    """Protocol 3.1 to 3.4: new_message alone carries an id; counted changes a comment; all have data."""
    server = await start_server(heartbeat_seconds=1)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    message = await server.send(ada, bob, "hello")
    sent = await stream.until("new_message")
    assert re.fullmatch(rb"id: [0-9a-z]{12}\.1\nevent: new_message\ndata: \{[^\n]+\}\n\n", sent.raw)
    assert sent.json == message

    await server.call("PATCH", f"/messages/{message['id']}", user=ada, json={"content": "hello you"})
    edited = await stream.until("message_edited")
    assert re.fullmatch(rb":1\nevent: message_edited\ndata: \{[^\n]+\}\n\n", edited.raw)
    assert edited.json["content"] == "hello you"
    assert edited.json["edited_at"]

    await server.call("PUT", f"/messages/{message['id']}/reactions/%F0%9F%91%8D", user=ada)
    reaction = await stream.until("reaction_update")
    assert re.fullmatch(rb":2\nevent: reaction_update\ndata: \{[^\n]+\}\n\n", reaction.raw)
    assert reaction.json["reactions"] == [{"emoji": "👍", "count": 1, "user_ids": [ada]}]

    status, _ = await server.call(
        "POST", f"/conversations/{message['conversation_id']}/read", user=ada, json={"seq": 1}
    )
    assert status == 200
    await server.call("POST", f"/conversations/{message['conversation_id']}/typing", user=ada, json={"is_typing": True})
    typing = await stream.until("typing_status")
    assert re.fullmatch(rb"event: typing_status\ndata: \{[^\n]+\}\n\n", typing.raw)
    assert typing.json["user_id"] == ada

    await server.call("POST", f"/conversations/{message['conversation_id']}/read", user=bob, json={"seq": 1})
    receipt = await stream.until("read_receipt")
    assert re.fullmatch(rb"event: read_receipt\ndata: \{[^\n]+\}\n\n", receipt.raw)
    assert receipt.json["last_read_seq"] == 1

    await server.call("DELETE", f"/messages/{message['id']}", user=ada)
    deleted = await stream.until("message_deleted")
    assert re.fullmatch(rb":3\nevent: message_deleted\ndata: \{[^\n]+\}\n\n", deleted.raw)

    heartbeat = await stream.until("heartbeat")
    assert re.fullmatch(rb'event: heartbeat\ndata: \{"server_time":"[^"]+Z","head":1\}\n\n', heartbeat.raw)
    assert all(event.data for event in stream.events if event.name != "message")
    cursor = stream.cursor
    stream.cut()

    # Nothing but messages is replayed, and in the state it now has.
    again = await open_stream(server, bob, cursor=cursor)
    await server.send(ada, bob, "next")
    assert (await again.until("new_message")).json["content"] == "next"
    replayed = [event.name for event in again.events if event.data and event.name != "heartbeat"]
    assert replayed == ["connected", "new_message"]


async def test_a_parser_that_is_not_ours_reads_the_stream(server):
    """Protocol 3.1: any client that follows the standard can read it."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    url = f"{server.url}/api/v1/messages/stream"
    headers = {"Authorization": f"Bearer {token_for(bob)}"}
    async with (
        httpx2.AsyncClient(timeout=10) as client,
        client.stream("GET", url, params={"user_id": bob}, headers=headers) as response,
    ):
        names, last_id = [], ""
        async for event in httpx2.EventSource(response):
            last_id = event.id or last_id
            if not event.data:
                continue  # an id-only block: a browser dispatches nothing
            names.append(event.event)
            if event.event == "connected":
                await server.send(ada, bob, "line one\nline two \u2028 \U0001f600 \\n")
            elif event.event == "new_message":
                assert json.loads(event.data)["content"] == "line one\nline two \u2028 \U0001f600 \\n"
                break
    assert names == ["connected", "new_message"]
    assert last_id.endswith(".1")


async def test_a_client_that_never_received_a_message_still_gets_the_one_it_missed(server, open_stream):
    """Protocol 4.2: the id-only block gives it a cursor before there is anything to receive."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    assert stream.cursor.endswith(".0")
    stream.cut()
    await server.send(ada, bob, "missed")
    await stream.connected()
    assert [m["content"] for m in await stream.messages(1)] == ["missed"]


async def test_two_devices_and_the_sender_all_get_the_message(server, open_stream):
    """Protocol 2.3: recipients are the members, the sender included."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    streams = [await open_stream(server, user) for user in (ada, bob, bob)]
    sent = await server.send(ada, bob, "to all")
    for stream in streams:
        assert (await stream.until("new_message")).json == sent


async def test_a_replay_of_many_pages_is_in_order_and_complete(server, open_stream):
    """Protocol 5.1, 5.2: 400 messages, over four pages, of sizes that fill a page early."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    stream.cut()
    texts = [f"{number} " + "x" * (number % 7 * 700) for number in range(400)]
    for text in texts:
        await server.send(ada, bob, text)
    await stream.connected()
    assert [m["content"] for m in await stream.messages(400, 15)] == texts
    assert stream.seqs == list(range(1, 401))


async def test_who_is_too_far_behind_is_told_to_reload_and_goes_on_from_there(server, open_stream, connection):
    """Protocol 6.2: resync with scope all, then the new cursor, then live."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    await asyncio.gather(*(server.send(ada, bob, f"{n}") for n in range(1001)))
    stream.cut()
    stream.cursor = stream.cursor.split(".")[0] + ".0"
    before = len(stream.events)
    await stream.open()
    resync = (await stream.until("resync")).json
    await stream.until_id(resync["cursor"])
    names = [event.name for event in stream.events[before:] if event.name != "heartbeat"]
    assert names == ["message", "connected", "resync", "message"]
    assert resync["scope"] == "all"
    assert resync["reason"] == "too_far_behind"
    assert stream.cursor == resync["cursor"]
    assert stream.cursor.endswith(".1001")
    await server.send(ada, bob, "live")
    assert [m["content"] for m in await stream.messages(1)] == ["live"]


@pytest.mark.parametrize(
    "cursor, reason",
    [("{epoch}.1", "ahead"), ("{epoch}.9223372036854775807", "ahead"), ("zzzz.0", "epoch"), ("0.0", "epoch")],
)
async def test_a_cursor_that_is_not_of_this_inbox_is_answered_with_resync(server, open_stream, cursor, reason):
    """Protocol 6.1."""
    bob = new_user("bob")
    stream = await open_stream(server, bob)
    epoch = stream.cursor.split(".")[0]
    other = await open_stream(server, bob, cursor=cursor.format(epoch=epoch))
    resync = await other.until("resync")
    assert resync.json == {"reason": reason, "scope": "all", "cursor": f"{epoch}.0"}
    await other.until_id(f"{epoch}.0")


async def test_the_cursor_of_another_user_means_nothing(server, open_stream):
    """Protocol 6.1: a cursor is read inside the caller's own inbox only."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    await server.send(ada, bob, "private")
    stream = await open_stream(server, ada)
    other = await open_stream(server, bob, cursor=stream.cursor)
    assert (await other.until("resync")).json["reason"] == "epoch"


@pytest.mark.parametrize("cursor", ["abc", "-1", "a.b", "A.1", "a.1 ", "a.-1", "a." + "9" * 20, "é.1", "x" * 8000])
async def test_a_cursor_that_no_server_wrote_is_refused(server, cursor):
    """Protocol 4.5: 422 before the status line of a stream."""
    bob = new_user("bob")
    status, problem = await server.call(
        "GET", f"/messages/stream?user_id={bob}", user=bob, headers={"Last-Event-ID": cursor}
    )
    assert status == 422
    assert problem["errors"][0]["field"] == "Last-Event-ID"


async def test_the_header_wins_over_the_query(server, open_stream):
    """Protocol 4.3: an automatic reconnect repeats a stale URL."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    stale = stream.cursor
    await server.send(ada, bob, "one")
    await stream.messages(1)
    async with httpx2.AsyncClient(timeout=10) as client:
        headers = {"Authorization": f"Bearer {token_for(bob)}", "Last-Event-ID": stream.cursor}
        url = f"{server.url}/api/v1/messages/stream"
        async with client.stream("GET", url, params={"user_id": bob, "last_event_id": stale}, headers=headers) as r:
            async for event in httpx2.EventSource(r):
                if event.event == "connected" and event.data:
                    assert json.loads(event.data)["replayed"] == 0
                    break


async def test_the_oldest_stream_of_a_user_with_too_many_is_closed(start_server, open_stream):
    """Protocol 4.7."""
    server = await start_server(max_streams_per_user=2)
    bob = new_user("bob")
    first = await open_stream(server, bob)
    others = [await open_stream(server, bob) for _ in range(2)]
    last_events = await first.until_end()
    assert last_events[-1].retry == 15_000
    for stream in others:
        await stream.silence(0.2)


async def test_head_on_the_stream_is_refused(server):
    """Protocol 4.6."""
    bob = new_user("bob")
    status, _ = await server.call("HEAD", f"/messages/stream?user_id={bob}", user=bob)
    assert status == 405
