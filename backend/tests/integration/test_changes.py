"""`changes`: everything that is newer than a rev, from one snapshot."""

import asyncio

from app.events import Message
from tests.world import World


async def test_changes_are_the_latest_state_by_rev(world: World):
    ann, bob = await world.users("ann", "bob")
    made = await world.direct(ann, bob)
    first, second, third = [await world.send(ann, made.id, text) for text in ("one", "two", "three")]
    copy = await world.conversations.list_changes(bob, made.id, after_rev=0, limit=50)
    assert [message.id for message in copy.items] == [first.id, second.id, third.id]
    assert (copy.rev, copy.has_more) == (third.rev, False)
    await world.messages.edit_message(ann, first.id, content="ONE")
    await world.messages.put_reaction(bob, first.id, emoji="x")
    await world.messages.delete_message(ann, third.id)
    await world.conversations.ephemeral.mark_read(bob, made.id, seq=2)
    news = await world.conversations.list_changes(bob, made.id, after_rev=copy.rev, limit=50)
    assert [(one.id, one.content, one.rev) for one in news.items] == [(first.id, "ONE", 6), (third.id, "", 7)]
    assert news.rev == news.conversation.rev == 7
    assert {one.user_id: one.last_read_seq for one in news.read_positions} == {ann: 3, bob: 2}
    assert news.conversation == await world.conversations.get_conversation(bob, made.id)
    nothing = await world.conversations.list_changes(bob, made.id, after_rev=7, limit=50)
    assert (nothing.items, nothing.rev, nothing.has_more) == ([], 7, False)


async def test_a_change_without_a_message_raises_the_rev_all_the_same(world: World):
    (ann,) = await world.users("ann")
    group = await world.group(ann)
    await world.conversations.rename(ann, group.id, title="New")
    news = await world.conversations.list_changes(ann, group.id, after_rev=1, limit=50)
    assert (news.items, news.rev, news.conversation.title) == ([], 2, "New")


async def test_a_rev_from_before_a_restore_is_answered_with_a_lower_one(world: World):
    """Protocol 6.4."""
    (ann,) = await world.users("ann")
    group = await world.group(ann)
    news = await world.conversations.list_changes(ann, group.id, after_rev=2**63 - 1, limit=50)
    assert (news.items, news.rev, news.has_more) == ([], 1, False)


async def test_pages_of_changes_lose_nothing_while_everything_changes(world: World):
    """Protocol 6.4: while `has_more`, `rev` is that of the last item."""
    ann, bob = await world.users("ann", "bob")
    made = await world.direct(ann, bob)
    for number in range(30):
        await world.send(ann, made.id, f"message {number}")
    copy: dict[object, Message] = {}
    rev = 0
    is_over = False

    async def disturb() -> None:
        sent = await world.all_messages(ann, made.id)
        for message in reversed(sent):
            await world.messages.put_reaction(bob, message.id, emoji="x")
            await world.messages.edit_message(ann, message.id, content=f"{message.content}!")
            await world.send(bob, made.id)

    disturbance = asyncio.create_task(disturb())
    while not is_over:
        was_quiet = disturbance.done()
        news = await world.conversations.list_changes(bob, made.id, after_rev=rev, limit=3)
        assert news.rev >= rev
        assert [one.rev for one in news.items] == sorted(one.rev for one in news.items)
        copy |= {one.id: one for one in news.items}
        rev = news.rev
        is_over = was_quiet and not news.has_more
    await disturbance
    assert sorted(copy.values(), key=lambda one: one.seq) == await world.all_messages(bob, made.id)


async def test_a_newcomer_to_a_long_group_asks_cheaply(world: World):
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann)
    await world.database.fetch(
        "INSERT INTO messages (id, conversation_id, seq, rev, sender_id, client_message_id, request_hash, content,"
        " created_at) SELECT gen_random_uuid(), $1, n, n, $2, gen_random_uuid(), '', 'x', now()"
        " FROM generate_series(1, 50000) AS n",
        group.id,
        ann,
    )
    await world.database.fetch("UPDATE conversations SET last_seq = 50000, rev = 50001 WHERE id = $1", group.id)
    await world.add(ann, group.id, bob)
    await world.conversations.list_changes(bob, group.id, after_rev=0, limit=50)
    started = asyncio.get_running_loop().time()
    news = await world.conversations.list_changes(bob, group.id, after_rev=0, limit=50)
    assert asyncio.get_running_loop().time() - started < 0.05
    assert news.items == []
