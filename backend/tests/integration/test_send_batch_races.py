"""`send_batch` among others: one conversation, no deadlock, and what is true after the lock."""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.db.changes import lock_conversation
from app.db.sends import Send, SendOutcome, held_rows, send_batch
from app.errors import UnavailableError
from tests.batches import Batch, Connection, assert_dense, new_send, patient, writers
from tests.world import World


async def test_equal_keys_in_batches_at_once_are_one_message(world: World):
    ann, bob = await world.users("ann", "bob")
    key = uuid4()
    async with writers(world, 8) as connections:
        outcomes = await asyncio.gather(
            *(
                patient(
                    connection,
                    [new_send(ann, recipient_id=bob, client_message_id=key), new_send(ann, recipient_id=bob)],
                )
                for connection in connections
            )
        )
    assert sorted(first.outcome for first, _ in outcomes) == ["created"] + ["repeat"] * 7
    assert len({first.message_id for first, _ in outcomes}) == 1
    assert await world.head_and_change(bob) == (9, 0)
    await assert_dense(world)


async def test_two_users_who_write_first_at_once_share_one_conversation(world: World):
    for _ in range(10):
        ann, bob, cid = await world.users("ann", "bob", "cid")
        async with writers(world, 6) as connections:
            pairs = [(ann, bob), (bob, ann), (bob, cid), (cid, bob), (ann, cid), (cid, ann)]
            outcomes = await asyncio.gather(
                *(
                    patient(
                        connection,
                        [new_send(*pair[:1], recipient_id=pair[1]) for pair in pairs[turn:] + pairs[:turn]],
                    )
                    for turn, connection in enumerate(connections)
                )
            )
        assert {one.outcome for batch in outcomes for one in batch} == {"created"}
        assert await world.head_and_change(ann) == (24, 0)
        made = await world.database.fetchval(
            "SELECT count(*) FROM conversations WHERE direct_a = ANY ($1) AND direct_b = ANY ($1)", [ann, bob, cid]
        )
        assert made == 3
    await assert_dense(world)


async def test_fifty_writers_on_crossing_pairs_never_deadlock(world: World):
    users = await world.users(*(f"user{number}" for number in range(8)))
    groups = [await world.group(users[0], *users) for _ in range(3)]
    chance = random.Random(7)

    def any_send() -> Send:
        sender, other = chance.sample(users, 2)
        if chance.random() < 0.4:
            return new_send(sender, conversation_id=chance.choice(groups).id)
        return new_send(sender, recipient_id=other)

    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = await world.database.fetchval(deadlocks)

    async def write(connection: Connection) -> int:
        created = 0
        for _ in range(4):
            outcomes = await patient(connection, [any_send() for _ in range(chance.randint(1, 12))])
            assert {outcome.outcome for outcome in outcomes} == {"created"}
            created += len(outcomes)
        return created

    async def change() -> None:
        for number in range(30):
            group = chance.choice(groups)
            with contextlib.suppress(UnavailableError):  # a loaded machine ran out of time
                message = await world.send(users[0], group.id)
                await world.messages.put_reaction(chance.choice(users), message.id, emoji="x")
                await world.conversations.rename(users[0], group.id, title=f"{number}")
                await world.conversations.ephemeral.mark_read(chance.choice(users), group.id, seq=message.seq)

    async with writers(world, 50) as connections:
        await asyncio.gather(*(write(connection) for connection in connections), change(), change())
    await asyncio.sleep(0.1)
    assert await world.database.fetchval(deadlocks) == before
    await assert_dense(world)


async def hold_then(
    world: World, group_id: UUID, owner: str, sends: Sequence[Send], *, change: str, arguments: Sequence[object]
) -> list[SendOutcome]:
    """Let a batch wait for a conversation's lock while its members change under that lock."""
    async with writers(world, 2) as (holder, writer):
        transaction = holder.transaction()
        await transaction.start()
        await lock_conversation(holder, owner, group_id)  # type: ignore[arg-type]  # a connection is a connection
        waiting = asyncio.create_task(send_batch(writer, sends, lock_timeout_ms=2000))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await holder.execute(change, *arguments)
        await transaction.commit()
        return await waiting


async def test_a_member_removed_while_the_batch_waits_receives_nothing_and_sends_nothing(world: World):
    ann, bob, cid = await world.users("ann", "bob", "cid")
    group = await world.group(ann, bob, cid)
    outcomes = await hold_then(
        world,
        group.id,
        ann,
        [new_send(ann, conversation_id=group.id), new_send(bob, conversation_id=group.id)],
        change="DELETE FROM members WHERE conversation_id = $1 AND user_id = $2",
        arguments=[group.id, bob],
    )
    assert [outcome.outcome for outcome in outcomes] == ["created", "conversation_not_found"]
    assert sorted(user_id for user_id, _ in outcomes[0].recipients) == [ann, cid]
    assert (await world.head_and_change(bob))[0] == 0


async def test_a_member_added_while_the_batch_waits_receives_it(world: World):
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann)
    outcomes = await hold_then(
        world,
        group.id,
        ann,
        [new_send(ann, conversation_id=group.id), new_send(bob, conversation_id=group.id)],
        change="INSERT INTO members (conversation_id, user_id) VALUES ($1, $2)",
        arguments=[group.id, bob],
    )
    assert [outcome.outcome for outcome in outcomes] == ["created", "created"]
    assert sorted(outcomes[0].recipients) == [(ann, 1), (bob, 1)]


async def test_a_row_that_is_held_too_long_fails_the_whole_batch_and_leaves_nothing(world: World, batch: Batch):
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann, bob)
    async with world.database.acquire() as connection, connection.transaction():
        await lock_conversation(connection, ann, group.id)
        started = time.monotonic()
        with pytest.raises(asyncpg.LockNotAvailableError):
            await batch(new_send(ann, recipient_id=bob), new_send(ann, conversation_id=group.id), lock_timeout_ms=100)
        assert time.monotonic() - started < 1
    assert await world.head_and_change(bob) == (0, 1)
    assert [one.outcome for one in await batch(new_send(ann, conversation_id=group.id))] == ["created"]


@pytest.mark.parametrize("sends", [1, 3], ids=["one send", "several"])
async def test_heads_are_taken_in_the_order_of_their_users(world: World, sends: int):
    """The one order in which every process takes them: in any other two batches could wait for each other."""
    first, second, held, fourth, fifth = users = await world.users("a", "b", "c", "d", "e")
    # Crossed: neither the order of the members nor that of the sends is the order of the users.
    groups = [await world.group(fifth, held, first), await world.group(fourth, second, held)][: 2 if sends > 1 else 1]
    crossed = [new_send(fifth, conversation_id=groups[0].id)]
    if sends > 1:
        crossed += [new_send(fourth, conversation_id=groups[1].id), new_send(fifth, recipient_id=first)]
    free = "SELECT user_id FROM inbox_heads WHERE user_id = ANY ($1) FOR NO KEY UPDATE SKIP LOCKED"
    waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
    async with writers(world, 2) as (holder, writer):
        pid = writer.get_server_pid()
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT FROM inbox_heads WHERE user_id = $1 FOR NO KEY UPDATE", held)
        waiting = asyncio.create_task(send_batch(writer, crossed, lock_timeout_ms=2000))
        async with asyncio.timeout(2):
            while not await world.database.fetchval(waits, pid):
                await asyncio.sleep(0.005)
        still_free = [row["user_id"] for row in await world.database.fetch(free, users)]
        await transaction.commit()
        outcomes = await waiting
    assert {outcome.outcome for outcome in outcomes} == {"created"}
    taken = {first, second} if sends > 1 else {first}
    assert set(users) - set(still_free) - {held} == taken


async def test_a_conversation_that_is_hidden_while_a_send_is_under_way_stays_hidden_only_after_it(world: World):
    """A new message shows it again; a send has looked for who hides it before it commits."""
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann, bob)
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1) AND wait_event_type = 'Lock'"
    async with writers(world, 2) as (holder, writer):
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(
            "SELECT FROM members WHERE conversation_id = $1 AND user_id = $2 FOR UPDATE", group.id, ann
        )
        sending = asyncio.create_task(
            send_batch(writer, [new_send(ann, conversation_id=group.id)], lock_timeout_ms=2000)
        )
        async with asyncio.timeout(2):
            while not await world.database.fetchval(waits, [writer.get_server_pid()]):
                await asyncio.sleep(0.005)
        hiding = asyncio.create_task(world.conversations.change_own_settings(bob, group.id, hidden=True))
        done, _ = await asyncio.wait({hiding}, timeout=0.3)
        assert not done, "it waits for the send"
        await transaction.rollback()
        assert [outcome.outcome for outcome in await sending] == ["created"]
        await hiding
    assert await world.database.fetchval(
        "SELECT hidden FROM members WHERE conversation_id = $1 AND user_id = $2", group.id, bob
    )


async def test_which_rows_are_held_is_told_at_once_and_by_whom(world: World):
    """Of all that sends would lock: conversations, members' heads, and the two of a pair that never wrote."""
    ann, bob, cid, dan = await world.users("ann", "bob", "cid", "dan")
    async with writers(world, 3) as (asking, holding, waiting):
        [made] = await send_batch(asking, [new_send(ann, recipient_id=bob)], lock_timeout_ms=1000)
        assert made.message is not None
        talk = made.message.conversation_id
        sends = [
            new_send(ann, conversation_id=talk),
            new_send(bob, recipient_id=ann),
            new_send(dan, recipient_id=bob),
            new_send(dan, recipient_id=cid),
            new_send(dan, recipient_id="nobody"),
            new_send(dan, conversation_id=uuid4()),
        ]
        assert await held_rows(asking, sends, 50) == [frozenset()] * len(sends)

        async with holding.transaction():
            await holding.execute("SELECT 1 FROM inbox_heads WHERE user_id = $1 FOR NO KEY UPDATE", bob)
            last = asyncio.create_task(patient(waiting, [new_send(ann, recipient_id=bob)]))
            await asyncio.sleep(0.2)  # it has the conversation, ann's membership, and ann's head, which is the first
            held = await held_rows(asking, sends, 50)
            assert [{row.name for row in rows} for rows in held] == [
                {str(talk), f"{talk} {ann}", ann, bob},
                {str(talk), ann, bob},
                *[{bob}, set(), set(), set()],
            ]
            assert await held_rows(asking, sends, 50) == held
            by_bob = held[2]
        await last
        async with holding.transaction():
            await holding.execute("UPDATE inbox_heads SET head = head WHERE user_id = $1", bob)
            again = (await held_rows(asking, sends, 50))[2]
        assert {row.name for row in again} == {bob}
        assert again.isdisjoint(by_bob)  # another transaction: the row has been free in between
        assert await held_rows(asking, sends, 50) == [frozenset()] * len(sends)

        async with holding.transaction():
            await holding.execute("UPDATE members SET muted_until = NULL WHERE user_id = $1", bob)
            held = await held_rows(asking, sends, 50)
            assert [{row.name for row in rows} for rows in held] == [set(), {f"{talk} {bob}"}, *[set()] * 4]

        async with holding.transaction():
            await holding.execute("LOCK TABLE inbox_heads IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await held_rows(asking, sends, 50)
    await assert_dense(world)
