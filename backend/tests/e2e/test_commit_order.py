"""Two sends that overlap: whoever commits first, no client ever misses one."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.servers import new_user

pytestmark = pytest.mark.e2e

# Holds a transaction open for a second after it has taken its numbers: `slow` takes its number first
# and commits last.
SLOW_TRIGGER = """
CREATE FUNCTION wait_if_slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF {condition} THEN PERFORM pg_sleep(1); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER wait_if_slow AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION wait_if_slow();
"""
AFTER_ITS_ID = SLOW_TRIGGER.format(table="messages", condition="NEW.content = 'slow'")
AFTER_ITS_SEQ = SLOW_TRIGGER.format(
    table="inbox", condition="(SELECT content FROM messages WHERE id = NEW.message_id) = 'slow'"
)


async def until_asleep(connection):
    """Wait until a transaction sits in the trigger."""
    async with asyncio.timeout(5):
        while not await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("trigger", [AFTER_ITS_ID, AFTER_ITS_SEQ], ids=["after its id", "after its seq"])
async def test_a_client_that_reconnects_between_two_overlapping_sends_gets_both(
    server, open_stream, connection, trigger
):
    """Protocol 2.1, 5.1: seq order is commit order, so `seq > last` cannot skip."""
    ada, bob, cleo = new_user("ada"), new_user("bob"), new_user("cleo")
    await server.know(ada, bob, cleo)
    await server.send(ada, bob, "before")  # both conversations exist
    await server.send(cleo, bob, "before")
    await connection.execute(trigger)
    stream = await open_stream(server, bob)
    stream.cut()

    slow = asyncio.create_task(server.send(ada, bob, "slow"))
    await until_asleep(connection)
    fast = asyncio.create_task(server.send(cleo, bob, "fast"))
    if trigger == AFTER_ITS_ID:
        await fast  # commits first, though `slow` took its id before it
    await stream.connected()
    await asyncio.gather(slow, fast)
    received = [m["content"] for m in await stream.messages(2)]
    assert sorted(received) == ["fast", "slow"]
    assert stream.seqs == [3, 4]
    assert received == (["fast", "slow"] if trigger == AFTER_ITS_ID else ["slow", "fast"])


async def test_the_same_overlap_loses_a_message_where_the_cursor_is_a_sequence(server, connection):
    """What the design avoids: numbers taken at INSERT become visible at COMMIT, in another order."""
    ada, bob, cleo = new_user("ada"), new_user("bob"), new_user("cleo")
    await server.know(ada, bob, cleo)
    await server.send(ada, bob, "before")
    await server.send(cleo, bob, "before")
    await connection.execute("ALTER TABLE messages ADD COLUMN number bigserial")
    await connection.execute(AFTER_ITS_ID)
    last = await connection.fetchval("SELECT max(number) FROM messages")
    naive = "SELECT content, number FROM messages WHERE number > $1 ORDER BY number"

    slow = asyncio.create_task(server.send(ada, bob, "slow"))
    await until_asleep(connection)
    await server.send(cleo, bob, "fast")
    received = await connection.fetch(naive, last)  # the client reconnects in between
    last = received[-1]["number"]
    await slow
    received += await connection.fetch(naive, last)
    assert [row["content"] for row in received] == ["fast"]  # `slow` is lost for ever
