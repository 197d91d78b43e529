"""`send_batch`, attacked: dense numbers, outcomes, width."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.db.sends import send_batch
from tests.batches import Batch, assert_dense, new_send, writers
from tests.world import World


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


async def test_sending_reads_and_shows(world: World, batch: Batch):
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann, bob)
    await batch(*(new_send(ann, conversation_id=group.id) for _ in range(3)))
    await world.conversations.change_own_settings(ann, group.id, hidden=True)
    await batch(new_send(bob, conversation_id=group.id))
    seen_by_ann = await world.conversations.get_conversation(ann, group.id)
    assert (seen_by_ann.unread, seen_by_ann.hidden) == (1, False)
    assert (await world.conversations.get_conversation(bob, group.id)).unread == 0


async def test_no_table_is_read_from_end_to_end(world: World):
    """Whatever PostgreSQL believes of their sizes: here they are tiny, and the plans are kept when they have grown."""
    ann, bob, cid, eve = await world.users("ann", "bob", "cid", "eve")
    group = await world.group(ann, bob, cid)
    await world.conversations.change_own_settings(cid, group.id, hidden=True)
    old = await world.send(ann, group.id)
    scans = "SELECT sum(seq_scan)::int FROM pg_stat_xact_user_tables WHERE relname <> 'meta'"
    repeated = new_send(ann, conversation_id=group.id, reply_to_id=old.id)
    async with writers(world, 1) as (writer,), writer.transaction():
        for sends in ([repeated], [repeated, new_send(bob, recipient_id=ann)], [new_send(eve, recipient_id=bob)]):
            await send_batch(writer, sends, lock_timeout_ms=2000)
        assert await writer.fetchval(scans) == 0
        await writer.fetch("SELECT content FROM messages")
        assert await writer.fetchval(scans) == 1, "it would have been seen"


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
