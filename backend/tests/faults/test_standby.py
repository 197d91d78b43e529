"""PostgreSQL answers, but with errors that nobody waits out: a standby, a fault of its own."""

from __future__ import annotations

import asyncio
import uuid
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.servers import new_user
from tests.support.streams import StreamClient

pytestmark = pytest.mark.faults

BROKEN = """
CREATE OR REPLACE FUNCTION current_epoch() RETURNS text LANGUAGE plpgsql STABLE AS
$$ BEGIN RAISE EXCEPTION 'recovery is in progress' USING ERRCODE = '{code}'; END $$"""


@pytest.mark.parametrize("code", ["55000", "XX000"], ids=["a standby", "an internal error"])
async def test_a_stream_is_never_refused_for_what_postgresql_says(start_server, open_stream, connection, code):
    """Protocol 4.5, 4.7, 8.2: EventSource gives up for ever at a 500; open streams beat and heal."""
    server = await start_server(heartbeat_seconds=1)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    whole = await connection.fetchval("SELECT pg_get_functiondef('current_epoch'::regproc)")
    await connection.execute(BROKEN.format(code=code))

    late = StreamClient(server, bob)
    await late.open(server)
    assert late.status == 200
    await late.until_end()
    assert late.retry_ms >= 10_000
    late.cut()
    await stream.until("heartbeat", 5)
    await stream.until("heartbeat", 5)

    await connection.execute(whole)
    await server.send(ada, bob, "all is well")
    assert [m["content"] for m in await stream.messages(1, 5)] == ["all is well"]
    assert "never retrieved" not in server.log.read_text()


async def test_a_user_who_is_gone_with_the_database_is_made_anew_and_told(start_server, open_stream, connection):
    """Protocol 6.1: restored to before the user was there; the stream ends, and the next one says `resync`."""
    server = await start_server(heartbeat_seconds=1)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    await server.send(ada, bob, "lost with the database")
    await stream.until("new_message")
    await connection.execute("DELETE FROM members; DELETE FROM inbox_heads; DELETE FROM users")
    async with asyncio.timeout(5):
        await stream.until_end()
    await server.know(ada)
    again = await open_stream(server, bob, cursor=stream.cursor)
    resync = await again.until("resync")
    assert (resync.json["scope"], resync.json["reason"]) == ("all", "ahead")


async def test_a_sender_who_is_gone_with_the_database_is_made_anew_by_the_next_try(start_server, connection):
    """Protocol 2.5, 8.2: restored under a process that has seen the sender, who need not wait until it forgets."""
    server = await start_server()
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    await server.send(ada, bob, "lost with the database")
    await connection.execute("TRUNCATE users, conversations, inbox CASCADE")
    await server.know(bob)
    body = {"recipient_id": bob, "content": "hello again", "client_message_id": str(uuid.uuid4())}
    tries = [await server.call("POST", "/messages/send", user=ada, json=body) for _ in range(2)]
    assert [status for status, _ in tries] == [503, 201]


async def test_a_database_that_is_away_to_be_restored_is_no_defect(start_server, database_url):
    """Protocol 8.2: dropped or renamed for a moment; 503, and never a 500, until it is there again."""
    server = await start_server()
    ada = new_user("ada")
    await server.know(ada)
    name = urlsplit(database_url).path.removeprefix("/")
    admin = await asyncpg.connect(urlsplit(database_url)._replace(path="/postgres").geturl())
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        async with asyncio.timeout(10):
            while await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = $1", name):
                await asyncio.sleep(0.05)
        await admin.execute(f"ALTER DATABASE {name} RENAME TO {name}_old")
        for user in (ada, new_user("unseen")):
            status, problem = await server.call("GET", "/conversations", user=user)
            assert (status, problem["code"]) == (503, "unavailable")
        await admin.execute(f"ALTER DATABASE {name}_old RENAME TO {name}")
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    finally:
        await admin.close()
    status, _ = await server.call("GET", "/conversations", user=ada)
    assert status == 200
