"""Foreign transactions that hold what a batch needs."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from tests.support.servers import new_user

pytestmark = pytest.mark.faults

SLACK_SECONDS = 0.5  # for a machine under load


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


@pytest.mark.slow
async def test_many_who_write_to_one_held_inbox_delay_nobody_else(start_server, database_url, connection):
    """Protocol 2.5: 256 senders wait for one row; others, compared with the calm, by at most 500 ms more."""
    server = await start_server()
    held = new_user("held")
    crowd = [new_user("crowd") for _ in range(256)]
    pairs = [(new_user("ada"), new_user("bob")) for _ in range(20)]
    await server.know(held, *crowd, *(user for pair in pairs for user in pair))

    async def send(sender: str, recipient: str) -> tuple[int, float]:
        started = time.monotonic()
        body = {"recipient_id": recipient, "content": "x"}
        status, _ = await server.call("POST", "/messages/send", user=sender, json=body)
        return status, time.monotonic() - started

    async def one_after_the_other() -> tuple[set[int], float]:
        sending = []
        for sender, recipient in pairs:
            sending.append(asyncio.create_task(send(sender, recipient)))
            await asyncio.sleep(0.1)
        answers = await asyncio.gather(*sending)
        return {status for status, _ in answers}, max(seconds for _, seconds in answers)

    crowded = [asyncio.create_task(send(user, held)) for user in crowd]
    statuses, calm_seconds = await one_after_the_other()
    assert statuses == {status for status, _ in await asyncio.gather(*crowded)} == {201}

    holder = await asyncpg.connect(database_url)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("UPDATE inbox_heads SET head = head WHERE user_id = $1", held)
        crowded = [asyncio.create_task(send(user, held)) for user in crowd]
        statuses, seconds = await one_after_the_other()
        assert statuses == {201}
        assert seconds < calm_seconds + 0.5 + SLACK_SECONDS
        await transaction.rollback()
        freed_at = time.monotonic()
        answers = await asyncio.gather(*crowded)
    finally:
        await holder.close()
    assert {status for status, _ in answers} == {201}
    assert time.monotonic() - freed_at < 1.5
    assert await connection.fetchval(DENSE) is True


async def test_who_writes_to_held_recipients_is_heard_by_all_others(start_server, database_url, connection, meter):
    """Protocol 2.5: of those a bot writes to, five are held; the rest of a hundred a second is not even late."""
    server = await start_server()
    bot, held, free = new_user("bot"), [new_user("held") for _ in range(5)], [new_user("bob") for _ in range(60)]
    await server.know(bot, *held, *free)

    async def send(recipient: str) -> tuple[int, float]:
        started = time.monotonic()
        body = {"recipient_id": recipient, "content": "x"}
        status, _ = await server.call("POST", "/messages/send", user=bot, json=body)
        return status, time.monotonic() - started

    holder = await asyncpg.connect(database_url)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("UPDATE inbox_heads SET head = head WHERE user_id = ANY ($1)", held)
        to_held, to_free = [], []
        for number in range(200):
            if number % 10 == 0:
                to_held.append(asyncio.create_task(send(held[number // 10 % 5])))
            else:
                to_free.append(asyncio.create_task(send(free[number % 60])))
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*to_free)
        assert {status for status, _ in answers} == {201}
        seconds = sorted(seconds for _, seconds in answers)
        assert seconds[len(seconds) // 2] < 0.1 + meter.longest()
        assert seconds[-1] < 1 + SLACK_SECONDS + meter.longest()
        assert not any(task.done() for task in to_held)
        await transaction.rollback()
        assert {status for status, _ in await asyncio.gather(*to_held)} == {201}
    finally:
        await holder.close()
    assert await connection.fetchval(DENSE) is True


async def test_a_busy_conversation_goes_on_after_it_was_held_for_a_moment(start_server, database_url, connection):
    """Protocol 2.5: what has gathered is sent at once, and later sends wait for nothing."""
    server = await start_server()
    ada, *members = [new_user("member") for _ in range(8)]
    await server.know(ada, *members)
    group = await server.group(ada, *members)
    statuses: list[int] = []

    async def write(user: str, until: float) -> None:
        while time.monotonic() < until:
            body = {"conversation_id": group, "content": "x"}
            status, _ = await server.call("POST", "/messages/send", user=user, json=body)
            statuses.append(status)

    holder = await asyncpg.connect(database_url)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT 1 FROM conversations WHERE id = $1 FOR NO KEY UPDATE", group)
        writing = asyncio.gather(*(write(members[n % 7], time.monotonic() + 2) for n in range(60)))
        await asyncio.sleep(0.7)
        assert not statuses
        await transaction.rollback()
        await asyncio.sleep(0.8)
        assert len(statuses) > 60
        await writing
    finally:
        await holder.close()
    assert set(statuses) == {201}
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
