"""Foreign transactions that hold what a batch needs."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from tests.support.servers import new_user

pytestmark = pytest.mark.faults


async def test_one_item_that_waits_takes_none_along(start_server, database_url, connection, meter):
    """Protocol 2.5: each item its own answer, the others delayed by at most 500 ms, every seq dense."""
    server = await start_server()
    ada, held, gone = new_user("ada"), new_user("held"), new_user("gone")
    others = [new_user("other") for _ in range(20)]
    await server.know(ada, held, gone, *others)
    await server.send(ada, held, "opens the conversation")
    duplicate = await server.send(ada, others[0], "twice", client_message_id="01a20952-618e-73fc-8ed3-1eeef3340d20")
    group = await server.group(others[1], gone)
    await server.call("DELETE", f"/conversations/{group}/members/{gone}", user=others[1])

    holder = await asyncpg.connect(database_url)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("UPDATE inbox_heads SET head = head WHERE user_id = $1", held)
        answered: dict[str, tuple[int, float]] = {}
        started = time.monotonic()

        async def send(name: str, user: str, **body) -> dict:
            status, message = await server.call("POST", "/messages/send", user=user, json={"content": "x", **body})
            answered[name] = (status, time.monotonic() - started)
            return message

        sends = [
            send("held", ada, recipient_id=held),
            send("gone", gone, conversation_id=group),
            send(
                "twice",
                ada,
                recipient_id=others[0],
                content="twice",
                client_message_id="01a20952-618e-73fc-8ed3-1eeef3340d20",
            ),
            *(send(f"other {n}", ada, recipient_id=user) for n, user in enumerate(others)),
        ]
        waiting = asyncio.gather(*sends)
        async with asyncio.timeout(10):
            while len(answered) < len(sends) - 1:
                await asyncio.sleep(0.01)
        assert "held" not in answered or answered["held"][0] == 503
        assert answered["gone"][0] == 404
        assert answered["twice"][0] == 200
        assert {answered[f"other {n}"][0] for n in range(20)} == {201}
        # Of the 500 ms that are promised, 200 go to the queue's own lock time-out; the rest is slack for
        # a machine under load.
        assert max(seconds for name, (_, seconds) in answered.items() if name != "held") < 1.5 + meter.longest()
        results = await waiting
        assert answered["held"][0] == 503
        assert answered["held"][1] < 5.5 + meter.longest()
        await transaction.rollback()
    finally:
        await holder.close()
    assert results[2]["id"] == duplicate["id"]
    assert (await server.send(ada, held, "free again"))["content"] == "free again"
    assert await connection.fetchval(DENSE) is True


DENSE = """
SELECT coalesce(bool_and(h.head = i.n AND i.lowest = 1 AND i.highest = i.n), true)
FROM inbox_heads AS h
JOIN (SELECT user_id, count(*) AS n, min(seq) AS lowest, max(seq) AS highest FROM inbox GROUP BY user_id) AS i
    ON i.user_id = h.user_id
"""


async def test_fifty_writers_with_crossing_pairs_and_keys_never_deadlock(start_server, connection):
    """Protocol 2.1: one lock order everywhere, over two processes."""
    servers = await asyncio.gather(start_server(), start_server())
    users = [new_user("user") for _ in range(5)]
    await servers[0].know(*users)
    keys = [f"01a20952-618e-73fc-8ed3-1eeef33400{n:02x}" for n in range(40)]
    groups = [await servers[0].group(users[n], *users[:n], *users[n + 1 :], title=f"{n}") for n in range(3)]

    async def write(number: int) -> set[int]:
        statuses = set()
        for step in range(12):
            sender = users[(number + step) % 5]
            recipient = users[(number + step + 1 + number % 4) % 5]
            target = {"recipient_id": recipient} if step % 3 else {"conversation_id": groups[number % 3]}
            body = {**target, "content": "x", "client_message_id": keys[(number * step) % 40]}
            status, _ = await servers[number % 2].call("POST", "/messages/send", user=sender, json=body)
            statuses.add(status)
        return statuses

    statuses = set().union(*await asyncio.gather(*(write(number) for number in range(50))))
    assert statuses <= {200, 201, 409}
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(deadlocks) == 0
    assert await connection.fetchval(DENSE) is True


async def test_a_member_removed_while_a_send_waits_for_the_conversation_gets_nothing(
    server, open_stream, database_url, connection
):
    """Protocol 2.3: recipients are the members at the commit, not at the beginning of the wait."""
    ada, bob, cleo = new_user("ada"), new_user("bob"), new_user("cleo")
    await server.know(ada, bob, cleo)
    group = await server.group(ada, bob)
    streams = {user: await open_stream(server, user) for user in (bob, cleo)}
    holder = await asyncpg.connect(database_url)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT 1 FROM conversations WHERE id = $1 FOR NO KEY UPDATE", group)
        sending = asyncio.create_task(server.post(ada, group, "who gets this"))
        async with asyncio.timeout(5):
            while not await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                await asyncio.sleep(0.01)
        await holder.execute("DELETE FROM members WHERE conversation_id = $1 AND user_id = $2", group, bob)
        await holder.execute("INSERT INTO members (conversation_id, user_id) VALUES ($1, $2)", group, cleo)
        await transaction.commit()
        await sending
    finally:
        await holder.close()
    assert [m["content"] for m in await streams[cleo].messages(1)] == ["who gets this"]
    await streams[bob].silence(0.5)
    assert await connection.fetchval("SELECT head FROM inbox_heads WHERE user_id = $1", bob) == 0
