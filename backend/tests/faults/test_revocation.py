"""Who is out gets nothing committed after that, whatever is down."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.servers import API_KEY, new_user, token_for

pytestmark = pytest.mark.faults

SERVER_KEY = {"X-API-Key": API_KEY}


async def test_a_revoked_user_is_out_at_once(start_server, open_stream, meter):
    """Protocol 9.3: every stream ends, in every process; the token is refused; a fresh one works."""
    one, other = await asyncio.gather(start_server(), start_server())
    ada, bob = new_user("ada"), new_user("bob")
    await one.know(ada, bob)
    streams = [await open_stream(server, bob) for server in (one, other)]
    status, _ = await one.call("POST", f"/users/{bob}/revoke", headers=SERVER_KEY)
    assert status == 204
    started = time.monotonic()
    for stream in streams:
        await stream.until_end(3)
    assert time.monotonic() - started < 2 + meter.longest()
    status, _ = await one.call("POST", "/messages/send", user=bob, json={"recipient_id": ada, "content": "x"})
    assert status == 401
    status, _ = await other.call("GET", f"/messages/stream?user_id={bob}", user=bob)
    assert status == 401
    await asyncio.sleep(1.1)  # the second of the revocation itself is refused
    fresh = await open_stream(one, bob, token=token_for(bob, issued_ago_seconds=0))
    await one.send(ada, bob, "welcome back")
    assert [m["content"] for m in await fresh.messages(1)] == ["welcome back"]


async def test_a_revoked_user_is_out_within_a_heartbeat_without_redis(start_server, open_stream, valkey, meter):
    """Protocol 9.3: the head check finds it."""
    server = await start_server(heartbeat_seconds=2)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    valkey.kill()
    await server.call("POST", f"/users/{bob}/revoke", headers=SERVER_KEY)
    started = time.monotonic()
    await stream.until_end(6)
    assert time.monotonic() - started < 4 + meter.longest()
    assert stream.contents == []


@pytest.mark.parametrize("with_redis", [True, False])
async def test_a_removed_member_gets_nothing_sent_after_the_removal(start_server, open_stream, valkey, with_redis):
    """Protocol 2.3, 5.3: with Redis and without; what was sent before is not replayed either."""
    server = await start_server(heartbeat_seconds=1)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    group = await server.group(ada, bob)
    stream = await open_stream(server, bob)
    await server.post(ada, group, "bob reads this")
    await stream.until("new_message")
    cursor_before = stream.cursor.rpartition(".")[0] + ".0"
    if not with_redis:
        valkey.kill()
    status, _ = await server.call("DELETE", f"/conversations/{group}/members/{bob}", user=ada)
    assert status == 204
    await server.post(ada, group, "bob must not read this")
    direct = await server.send(ada, bob, "this is for bob")
    async with asyncio.timeout(10):
        while len(stream.contents) < 2:
            await stream.next(10)
    assert stream.contents == ["bob reads this", direct["content"]]
    again = await open_stream(server, bob, cursor=cursor_before)
    await again.until("new_message")
    assert again.contents == ["this is for bob"]  # the first one is an id-only block now
    assert again.cursor == stream.cursor
    for path in ("", "/messages", "/members", "/changes?after_rev=0"):
        status, _ = await server.call("GET", f"/conversations/{group}{path}", user=bob)
        assert status == 404
