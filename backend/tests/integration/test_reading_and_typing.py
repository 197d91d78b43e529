"""Read receipts and typing, and what becomes of them in large groups."""

from uuid import uuid4

from app import events
from app.services.ephemeral_service import TYPING_PAUSE_SECONDS, TypingThrottle
from tests.world import World


async def test_read_positions_move_forward_and_no_further_than_there_is(world: World):
    ann, bob = await world.users("ann", "bob")
    made = await world.direct(ann, bob)
    for _ in range(5):
        await world.send(ann, made.id)
    world.outlet.take()
    state = await world.conversations.ephemeral.mark_read(bob, made.id, seq=3)
    assert (state.last_read_seq, state.unread) == (3, 2)
    told = world.outlet.take()
    assert sorted(one.user_id for one in told) == [ann, bob]
    assert told[0].data.keys() == {"conversation_id", "user_id", "last_read_seq", "read_at"}
    assert (await world.conversations.ephemeral.mark_read(bob, made.id, seq=2)).last_read_seq == 3
    assert world.outlet.take() == [], "nothing moved"
    assert (await world.conversations.ephemeral.mark_read(bob, made.id, seq=99)).last_read_seq == 5
    assert world.outlet.take()[0].data["last_read_seq"] == 5
    assert (await world.conversations.get_conversation(bob, made.id)).rev == 6, "reading takes no rev"


async def test_typing_reaches_the_others_once_in_two_seconds(world: World):
    ann, bob, cid = await world.users("ann", "bob", "cid")
    group = await world.group(ann, bob, cid)
    world.outlet.take()
    for _ in range(3):
        await world.conversations.ephemeral.set_typing(ann, group.id, is_typing=True)
    told = world.outlet.take()
    assert sorted(one.user_id for one in told) == [bob, cid]
    assert told[0].data == {"conversation_id": str(group.id), "user_id": ann, "is_typing": True, "expires_in": 6}


def test_the_throttle_forgets_after_its_pause_and_at_its_bound():
    now = 100.0
    throttle = TypingThrottle(lambda: now)
    room, other = uuid4(), uuid4()
    assert throttle.admits(room, "ann")
    assert not throttle.admits(room, "ann")
    assert throttle.admits(room, "bob")
    assert throttle.admits(other, "ann")
    now += TYPING_PAUSE_SECONDS
    assert throttle.admits(room, "ann")
    for number in range(20_000):
        throttle.admits(room, f"user{number}")
    assert len(throttle._heard_at) == 10_000


async def test_large_groups_have_no_typing_and_receipts_for_oneself(world: World):
    ann, *others = await world.users("ann", *(f"user{number}" for number in range(events.LARGE_GROUP_MEMBERS)))
    group = await world.group(ann, *others)
    await world.send(ann, group.id)
    world.outlet.take()
    await world.conversations.ephemeral.set_typing(ann, group.id, is_typing=True)
    assert world.outlet.take() == []
    await world.conversations.ephemeral.mark_read(others[0], group.id, seq=1)
    assert [one.user_id for one in world.outlet.take()] == [others[0]]
    renamed = await world.conversations.rename(ann, group.id, title="Everyone")
    told = {one.user_id: one.data for one in world.outlet.take()}
    assert len(told) == 101
    assert told[ann]["title"] == "Everyone"
    assert told[others[5]] == {"id": str(group.id), "rev": renamed.rev}
    seen = await world.conversations.list_changes(others[0], group.id, after_rev=0, limit=50)
    assert [(position.user_id, position.last_read_seq) for position in seen.read_positions] == [(others[0], 1)]
