"""Groups, small and large."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.servers import new_user, token_for

pytestmark = pytest.mark.e2e


async def test_every_online_member_of_a_group_of_a_thousand_gets_the_message(server, open_stream, connection):
    """Protocol 2.3: one send, 1,000 inboxes, 1,000 streams; PostgreSQL's part under 15 ms."""
    owner = new_user("owner")
    members = [new_user("m") for _ in range(999)]
    await server.know(owner)
    await connection.execute("INSERT INTO users (id) SELECT unnest($1::text[])", members)
    await connection.execute("INSERT INTO inbox_heads (user_id) SELECT unnest($1::text[])", members)
    group = await server.group(owner, *members)
    streams = []
    for start in range(0, 999, 50):
        streams += await asyncio.gather(*(open_stream(server, user) for user in members[start : start + 50]))
    await server.post(owner, group, "warm-up")
    sent = await server.post(owner, group, "to all")
    for stream in streams:
        received = await stream.messages(2, 10)
        assert received[1]["id"] == sent["id"]
    heads = await connection.fetchval("SELECT count(*) FROM inbox_heads WHERE head = 2")
    assert heads == 1000


async def test_one_person_reads_what_another_writes_edits_and_takes_back(server, open_stream):
    """The whole life of a group in one test: titles, members, roles, history, unread."""
    ada, bob, cleo = new_user("ada"), new_user("bob"), new_user("cleo")
    await server.know(ada, bob, cleo)
    group = await server.group(ada, bob, title="plans")
    stream = await open_stream(server, bob)
    for text in ("one", "two", "three"):
        await server.post(ada, group, text)
    await stream.messages(3)
    _, conversation = await server.call("GET", f"/conversations/{group}", user=bob)
    assert (conversation["unread"], conversation["last_seq"], conversation["title"]) == (3, 3, "plans")
    await server.call("POST", f"/conversations/{group}/read", user=bob, json={"seq": 2})
    _, conversation = await server.call("GET", f"/conversations/{group}", user=bob)
    assert conversation["unread"] == 1
    status, _ = await server.call("PUT", f"/conversations/{group}/members/{cleo}", user=ada, json={})
    assert status in (200, 201, 204)
    assert (await stream.until("conversation_updated")).json["member_count"] == 3
    _, page = await server.call("GET", f"/conversations/{group}/messages", user=cleo)
    assert page["items"] == []  # a member sees what was sent since joining
    await server.post(bob, group, "welcome")
    _, page = await server.call("GET", f"/conversations/{group}/messages", user=cleo)
    assert [m["content"] for m in page["items"]] == ["welcome"]


async def test_a_stream_ends_with_its_token(server, open_stream):
    """Protocol 9.2."""
    bob = new_user("bob")
    await server.know(bob)
    stream = await open_stream(server, bob, token=token_for(bob, minutes=2 / 60))
    await stream.until_end(4)


async def test_who_writes_has_read_and_sends_no_receipt(server, open_stream):
    """Protocol 2.6: the message itself says that its sender has read up to it."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, ada)
    await server.send(ada, bob, "one")
    answer = await server.send(bob, ada, "two")
    await stream.messages(2)
    _, conversation = await server.call("GET", f"/conversations/{answer['conversation_id']}", user=bob)
    assert (conversation["unread"], conversation["last_read_seq"]) == (0, 2)
    await stream.silence(0.3)
    await server.call("POST", f"/conversations/{answer['conversation_id']}/read", user=bob, json={"seq": 2})
    await stream.silence(0.3)  # nothing has moved
