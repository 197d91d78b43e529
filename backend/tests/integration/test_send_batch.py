"""`send_batch`, attacked: dense numbers, outcomes, races, width."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from app.db.changes import lock_conversation
from app.db.sends import Send, SendOutcome, send_batch
from tests.world import World

Connection = Annotated["asyncpg.Connection[asyncpg.Record]", "a writer"]
Batch = Callable[..., Awaitable[list[SendOutcome]]]


def new_send(sender: str, **fields: Any) -> Send:
    """A send to `conversation_id` or `recipient_id`, with fresh ids and whatever else is given."""
    defaults: dict[str, Any] = {
        "message_id": uuid7(),
        "client_message_id": uuid4(),
        "request_hash": b"hash",
        "content": "hello",
        "conversation_id": None,
        "recipient_id": None,
        "reply_to_id": None,
        "new_conversation_id": uuid7(),
        "token_issued_at": None,
    }
    return Send(sender_id=sender, **defaults | fields)


@asynccontextmanager
async def writers(world: World, count: int) -> AsyncIterator[list[Connection]]:
    connections = [await world.database.connect() for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.terminate()


@pytest.fixture
async def batch(world: World) -> AsyncIterator[Batch]:
    async with writers(world, 1) as (connection,):

        async def run(*sends: Send, lock_timeout_ms: int = 2000) -> list[SendOutcome]:
            return await send_batch(connection, sends, lock_timeout_ms=lock_timeout_ms)

        yield run


async def patient(connection: Connection, sends: Sequence[Send]) -> list[SendOutcome]:
    """What the queue does: run it again when PostgreSQL asks."""
    for _ in range(20):
        try:
            return await send_batch(connection, sends, lock_timeout_ms=2000)
        except asyncpg.SerializationError:
            await asyncio.sleep(random.uniform(0.001, 0.01))
    raise AssertionError("never came through")


async def assert_dense(world: World) -> None:
    """Check every log of the database: seqs from 1 to the head without a hole, nothing twice."""
    heads = """
        SELECT h.user_id FROM inbox_heads AS h LEFT JOIN inbox AS i ON i.user_id = h.user_id
        GROUP BY h.user_id HAVING count(i.seq) <> h.head OR coalesce(max(i.seq), 0) <> h.head
            OR count(DISTINCT i.message_id) <> count(i.message_id)"""
    assert await world.database.fetch(heads) == []
    conversations = """
        SELECT c.id FROM conversations AS c LEFT JOIN messages AS m ON m.conversation_id = c.id
        GROUP BY c.id HAVING count(m.seq) <> c.last_seq OR coalesce(max(m.seq), 0) <> c.last_seq
            OR coalesce(max(m.rev), 0) > c.rev OR count(DISTINCT m.rev) <> count(m.rev)"""
    assert await world.database.fetch(conversations) == []


async def test_a_batch_numbers_each_conversation_and_each_inbox_densely(world: World, batch: Batch):
    ann, bob, cid = await world.users("ann", "bob", "cid")
    group = await world.group(ann, bob, cid)
    sends = [
        new_send(ann, conversation_id=group.id),
        new_send(ann, recipient_id=bob),
        new_send(bob, conversation_id=group.id),
        new_send(bob, recipient_id=ann),
        new_send(cid, conversation_id=group.id),
    ]
    outcomes = await batch(*sends)
    messages = [outcome.message for outcome in outcomes]
    assert all(message is not None for message in messages)
    assert [(message.seq, message.rev) for message in messages if message] == [(1, 2), (1, 1), (2, 3), (2, 2), (3, 4)]
    assert [message.id for message in messages if message] == [send.message_id for send in sends]
    assert [sorted(outcome.recipients) for outcome in outcomes] == [
        [(ann, 1), (bob, 1), (cid, 1)],
        [(ann, 2), (bob, 2)],
        [(ann, 3), (bob, 3), (cid, 2)],
        [(ann, 4), (bob, 4)],
        [(ann, 5), (bob, 5), (cid, 3)],
    ]
    assert messages[0] is not None
    assert await world.messages.get_message(bob, messages[0].id) == messages[0]
    await assert_dense(world)


async def test_what_is_wrong_with_one_send_takes_no_other_along(world: World, batch: Batch):
    ann, bob, eve, ban = await world.users("ann", "bob", "eve", "ban")
    group = await world.group(ann, bob, ban)
    stored = new_send(ann, conversation_id=group.id)
    await batch(stored)
    now = datetime.now(UTC)
    await world.database.fetch("UPDATE users SET tokens_valid_after = $2 WHERE id = $1", ban, now)
    key = {"client_message_id": stored.client_message_id}
    sends = {
        "first": new_send(ann, conversation_id=group.id),
        "repeat": new_send(ann, conversation_id=group.id, **key),
        "repeat elsewhere": new_send(ann, recipient_id=eve, **key),
        "conflict": new_send(ann, conversation_id=group.id, request_hash=b"other", **key),
        "another's key": new_send(bob, conversation_id=group.id, **key),
        "revoked": new_send(ban, conversation_id=group.id, token_issued_at=now.replace(microsecond=0)),
        "fresh token": new_send(ban, conversation_id=group.id, token_issued_at=now + timedelta(seconds=1)),
        "host's server": new_send(ban, conversation_id=group.id),
        "stranger": new_send(eve, conversation_id=group.id),
        "no conversation": new_send(ann, conversation_id=uuid4()),
        "no recipient": new_send(ann, recipient_id="nobody"),
        "no reply": new_send(ann, conversation_id=group.id, reply_to_id=uuid4()),
        "last": new_send(ann, conversation_id=group.id),
    }
    outcomes = dict(zip(sends, await batch(*sends.values()), strict=True))
    assert {name: outcome.outcome for name, outcome in outcomes.items()} == {
        "first": "created",
        "repeat": "repeat",
        "repeat elsewhere": "repeat",
        "conflict": "conflict",
        "another's key": "created",
        "revoked": "revoked",
        "fresh token": "created",
        "host's server": "created",
        "stranger": "conversation_not_found",
        "no conversation": "conversation_not_found",
        "no recipient": "recipient_not_found",
        "no reply": "reply_not_found",
        "last": "created",
    }
    assert outcomes["repeat"].message_id == stored.message_id
    assert all(not one.recipients for one in outcomes.values() if one.outcome != "created")
    created = [one.message.seq for one in outcomes.values() if one.message]
    assert created == [2, 3, 4, 5, 6]
    opened = await world.database.fetchval(
        "SELECT count(*) FROM conversations WHERE direct_a = $1 OR direct_b = $1", eve
    )
    assert opened == 0, "a repeated key opens nothing"
    await assert_dense(world)


async def test_a_revoked_sender_opens_no_conversation(world: World, batch: Batch):
    ann, bob = await world.users("ann", "bob")
    await world.database.fetch("UPDATE users SET tokens_valid_after = now() WHERE id = $1", ann)
    (outcome,) = await batch(new_send(ann, recipient_id=bob, token_issued_at=datetime(2020, 1, 1, tzinfo=UTC)))
    assert outcome.outcome == "revoked"
    page = await world.conversations.list_conversations(bob, hidden=False, before=None, limit=5)
    assert page.items == []


async def test_the_own_key_is_looked_up_before_membership(world: World, batch: Batch):
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann, bob)
    stored = new_send(bob, conversation_id=group.id)
    await batch(stored)
    await world.remove(ann, group.id, bob)
    (outcome,) = await batch(new_send(bob, conversation_id=group.id, client_message_id=stored.client_message_id))
    assert (outcome.outcome, outcome.message_id) == ("repeat", stored.message_id)


async def test_a_reply_is_to_a_message_of_the_same_conversation_that_the_sender_can_read(world: World, batch: Batch):
    ann, bob, cid = await world.users("ann", "bob", "cid")
    group = await world.group(ann, bob)
    direct = await world.direct(ann, bob)
    old = await world.send(ann, group.id)
    elsewhere = await world.send(ann, direct.id)
    await world.add(ann, group.id, cid)
    new = await world.send(ann, group.id)
    await world.messages.delete_message(ann, new.id)
    outcomes = await batch(
        new_send(bob, conversation_id=group.id, reply_to_id=old.id),
        new_send(cid, conversation_id=group.id, reply_to_id=old.id),
        new_send(cid, conversation_id=group.id, reply_to_id=new.id),
        new_send(bob, conversation_id=group.id, reply_to_id=elsewhere.id),
        new_send(bob, recipient_id=ann, reply_to_id=elsewhere.id),
        new_send(bob, recipient_id=cid, reply_to_id=old.id),
    )
    assert [outcome.outcome for outcome in outcomes] == [
        "created",
        "reply_not_found",
        "created",
        "reply_not_found",
        "created",
        "reply_not_found",
    ]


async def test_equal_keys_in_a_batch_write_nothing(world: World, batch: Batch):
    ann, bob = await world.users("ann", "bob")
    key = uuid4()
    with pytest.raises(asyncpg.SerializationError):
        await batch(*(new_send(ann, recipient_id=bob, client_message_id=key) for _ in range(2)))
    assert await world.head_and_change(bob) == (0, 0)


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


async def test_sending_reads_and_shows(world: World, batch: Batch):
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann, bob)
    await batch(*(new_send(ann, conversation_id=group.id) for _ in range(3)))
    await world.conversations.change_own_settings(ann, group.id, hidden=True)
    await batch(new_send(bob, conversation_id=group.id))
    seen_by_ann = await world.conversations.get_conversation(ann, group.id)
    assert (seen_by_ann.unread, seen_by_ann.hidden) == (1, False)
    assert (await world.conversations.get_conversation(bob, group.id)).unread == 0


async def wide_group(world: World, width: int) -> tuple[str, UUID]:
    (owner,) = await world.users("owner")
    group = await world.group(owner)
    suffix = uuid4().hex[:8]
    others = [f"w{number}-{suffix}" for number in range(width - 1)]
    await world.database.fetch("INSERT INTO users (id) SELECT unnest($1::text[])", others)
    await world.database.fetch("INSERT INTO inbox_heads (user_id) SELECT unnest($1::text[])", others)
    members = "INSERT INTO members (conversation_id, user_id) SELECT $1, unnest($2::text[])"
    await world.database.fetch(members, group.id, others)
    await world.database.fetch("ANALYZE")
    return owner, group.id


@pytest.mark.parametrize("width, milliseconds", [(1000, 40), (10_000, 400)])
async def test_a_wide_group_is_written_fast(world: World, batch: Batch, width: int, milliseconds: float):
    owner, group_id = await wide_group(world, width)
    took = []
    for _ in range(9):
        started = time.perf_counter()
        (outcome,) = await batch(new_send(owner, conversation_id=group_id))
        took.append((time.perf_counter() - started) * 1000)
        assert len(outcome.recipients) == width
    took.sort()
    timing = f"{width} members: fastest {took[0]:.1f} ms, median {took[4]:.1f} ms, slowest {took[-1]:.1f} ms"
    print(timing)  # noqa: T201 - for pytest -s
    # A quiet core takes a quarter of it; a plan that went wrong takes ten times as much.
    assert took[0] < milliseconds, timing


async def test_a_full_batch_costs_little_more_than_its_sends(world: World, batch: Batch):
    users = await world.users(*(f"user{number}" for number in range(64)))
    await batch(*(new_send(user, recipient_id=users[number - 1]) for number, user in enumerate(users)))
    took = []
    for _ in range(20):
        sends = [new_send(user, recipient_id=users[number - 1]) for number, user in enumerate(users)]
        started = time.perf_counter()
        await batch(*sends)
        took.append((time.perf_counter() - started) * 1000)
    took.sort()
    timing = f"64 sends of two people each: fastest {took[0]:.1f} ms, median {took[10]:.1f} ms"
    print(timing)  # noqa: T201 - for pytest -s
    assert took[0] < 40, timing
    await assert_dense(world)
