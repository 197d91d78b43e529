"""Who may let in, promote and remove whom, and what a member may read."""

import asyncio
from uuid import UUID, uuid4

import pytest

from app.db.changes import lock_conversation
from app.errors import ForbiddenError, InvalidRequestError, NotFoundError
from tests.world import World, in_parallel, new_world


async def roles(world: World, reader: str, group_id: UUID) -> dict[str, str]:
    return {member.id: member.role for member in (await world.conversations.get_conversation(reader, group_id)).members}


async def test_a_member_is_let_in_by_an_owner_and_told_with_everyone(world: World):
    ann, bob, cid = await world.users("ann", "bob", "cid")
    group = await world.group(ann, bob)
    world.outlet.take()
    with pytest.raises(ForbiddenError):
        await world.add(bob, group.id, cid)
    member, is_new = await world.conversations.members.put_member(ann, group.id, user_id=cid, role=None)
    assert (member.id, member.role, is_new) == (cid, "member", True)
    told = {one.user_id: one for one in world.outlet.take()}
    assert {user_id: one.number for user_id, one in told.items()} == {ann: 2, bob: 2, cid: 1}
    assert all(one.data["rev"] == 2 and one.data["member_count"] == 3 for one in told.values())
    assert told[cid].data["role"] == "member"
    again = await world.conversations.members.put_member(ann, group.id, user_id=cid, role="member")
    assert again == (member, False)
    assert world.outlet.take() == []


async def test_a_user_who_is_not_known_cannot_be_let_in(world: World):
    (ann,) = await world.users("ann")
    group = await world.group(ann)
    with pytest.raises(NotFoundError):
        await world.add(ann, group.id, "nobody")
    with pytest.raises(NotFoundError):
        await world.remove(ann, group.id, "nobody")


async def test_who_joins_reads_what_is_sent_from_then_on_by_every_route(world: World):
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann)
    before = await world.send(ann, group.id, "before")
    await world.add(ann, group.id, bob)
    seen = await world.conversations.get_conversation(bob, group.id)
    assert (seen.last_seq, seen.last_message, seen.unread, seen.last_read_seq) == (1, None, 0, 1)
    assert await world.all_messages(bob, group.id) == []
    assert (await world.conversations.list_changes(bob, group.id, after_rev=0, limit=50)).items == []
    page = await world.conversations.list_messages(bob, group.id, before=None, after=0, limit=50)
    assert page.items == []
    refused = await in_parallel(
        [
            world.messages.get_message(bob, before.id),
            world.messages.edit_message(bob, before.id, content="x"),
            world.messages.delete_message(bob, before.id),
            world.messages.put_reaction(bob, before.id, emoji="x"),
            world.messages.delete_reaction(bob, before.id, emoji="x"),
        ]
    )
    assert [type(one) for one in refused] == [NotFoundError] * 5
    with pytest.raises(InvalidRequestError):
        await world.send(bob, group.id, reply_to_id=before.id)
    after = await world.send(ann, group.id, "after", reply_to_id=before.id)
    assert await world.all_messages(bob, group.id) == [after]


async def test_who_joined_later_is_not_told_what_was_said_before(world: World):
    """Protocol 3.7: `{id, rev}` in place of an edit from before."""
    ann, bob, cid = await world.users("ann", "bob", "cid")
    group = await world.group(ann, bob)
    before = await world.send(ann, group.id, "before")
    await world.add(ann, group.id, cid)
    world.outlet.take()
    await world.messages.put_reaction(bob, before.id, emoji="x")
    edited = await world.messages.edit_message(ann, before.id, content="secret")
    await world.messages.delete_message(ann, before.id)
    told = world.outlet.take()
    assert [one.event for one in told if one.user_id == bob] == ["reaction_update", "message_edited", "message_deleted"]
    later = [one for one in told if one.user_id == cid]
    assert [one.event for one in later] == ["conversation_updated"] * 3
    assert later[1].data == {"id": str(group.id), "rev": edited.rev}
    assert [one.number for one in later] == [2, 3, 4], "counted all the same"


async def test_who_left_reads_nothing_and_who_returns_starts_anew(world: World):
    """Protocol 3.7, 6.6, 9.4."""
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann, bob)
    mine = await world.send(bob, group.id, "mine")
    world.outlet.take()
    await world.remove(ann, group.id, bob)
    told = {one.user_id: one for one in world.outlet.take()}
    assert told[bob].data == {"id": str(group.id), "rev": 3, "role": None}
    assert told[bob].number == 2
    assert told[ann].data["member_count"] == 1
    refused = await in_parallel(
        [
            world.conversations.get_conversation(bob, group.id),
            world.conversations.list_changes(bob, group.id, after_rev=0, limit=5),
            world.messages.get_message(bob, mine.id),
            world.messages.edit_message(bob, mine.id, content="x"),
            world.messages.delete_message(bob, mine.id),
            world.send(bob, group.id),
        ]
    )
    assert [type(one) for one in refused] == [NotFoundError] * 6
    await world.send(ann, group.id, "meanwhile")
    await world.add(ann, group.id, bob)
    assert await world.all_messages(bob, group.id) == []
    with pytest.raises(NotFoundError):
        await world.messages.edit_message(bob, mine.id, content="his own, but from before")
    assert (await world.conversations.list_changes(bob, group.id, after_rev=0, limit=5)).joined_seq == 2


async def test_roles_are_set_by_owners_and_a_group_keeps_one(world: World):
    ann, bob, cid = await world.users("ann", "bob", "cid")
    group = await world.group(ann, bob, cid)
    with pytest.raises(ForbiddenError):
        await world.add(ann, group.id, ann, "member")
    await world.add(ann, group.id, bob, "owner")
    await world.add(bob, group.id, ann, "member")
    with pytest.raises(ForbiddenError):
        await world.add(ann, group.id, cid, "owner")
    assert await roles(world, cid, group.id) == {ann: "member", bob: "owner", cid: "member"}


async def test_the_last_owner_to_leave_hands_over_to_the_oldest_member(world: World):
    ann, zoe, bob = await world.users("ann", "zoe", "bob")
    group = await world.group(ann)
    await world.add(ann, group.id, zoe)
    await world.add(ann, group.id, bob)
    world.outlet.take()
    await world.remove(ann, group.id, ann)
    told = {one.user_id: one.data for one in world.outlet.take()}
    assert told[ann]["role"] is None
    assert (told[zoe]["role"], told[bob]["role"]) == ("owner", "member")
    assert await roles(world, bob, group.id) == {zoe: "owner", bob: "member"}
    await world.remove(bob, group.id, bob)
    await world.remove(zoe, group.id, zoe)
    assert await world.database.fetchval("SELECT count(*) FROM members WHERE conversation_id = $1", group.id) == 0
    with pytest.raises(NotFoundError):
        await world.remove(zoe, group.id, zoe)


async def test_members_remove_nobody_but_themselves(world: World):
    ann, bob, cid = await world.users("ann", "bob", "cid")
    group = await world.group(ann, bob, cid)
    with pytest.raises(ForbiddenError):
        await world.remove(bob, group.id, cid)
    await world.remove(bob, group.id, bob)


async def test_the_members_of_a_direct_conversation_never_change(world: World):
    ann, bob, cid = await world.users("ann", "bob", "cid")
    direct = await world.direct(ann, bob)
    for call in (
        world.add(ann, direct.id, cid),
        world.add(ann, direct.id, bob, "owner"),
        world.remove(ann, direct.id, bob),
        world.remove(ann, direct.id, ann),
    ):
        with pytest.raises(ForbiddenError):
            await call


async def test_members_are_listed_by_id_in_pages(world: World):
    ids = sorted(await world.users(*(f"user{number:02}" for number in range(25))))
    group = await world.group(ids[3], *ids)
    assert [member.id for member in group.members] == ids[:20]
    listed = await world.conversations.members.list_members(ids[0], group.id, after=ids[19], limit=5)
    assert [member.id for member in listed.items] == ids[20:]
    assert (listed.has_more, listed.next_cursor) == (False, None)
    first = await world.conversations.members.list_members(ids[0], group.id, after=None, limit=24)
    assert (first.has_more, first.next_cursor) == (True, ids[23])


async def test_a_full_group_lets_nobody_in_however_many_ask_at_once(postgres, template):
    url = postgres.url.rpartition("/")[0] + "/" + template
    async with new_world(url, max_group_members=5) as small:
        ann, *others = await small.users("ann", *(f"user{number}" for number in range(12)))
        group = await small.group(ann)
        refused = await in_parallel(small.add(ann, group.id, other) for other in others)
        assert [type(one) for one in refused if one is not None] == [InvalidRequestError] * 8
        assert (await small.conversations.get_conversation(ann, group.id)).member_count == 5
        with pytest.raises(InvalidRequestError):
            await small.group(ann, *others[:5])


async def test_two_owners_who_remove_each_other_leave_one(world: World):
    for _ in range(5):
        ann, bob, cid = await world.users("ann", "bob", "cid")
        group = await world.group(ann, bob, cid)
        await world.add(ann, group.id, bob, "owner")
        refused = await in_parallel([world.remove(ann, group.id, bob), world.remove(bob, group.id, ann)])
        assert sorted(type(one).__name__ for one in refused) == ["NoneType", "NotFoundError"]
        assert sorted((await roles(world, cid, group.id)).values()) == ["member", "owner"]


async def test_what_waited_for_the_lock_decides_by_what_is_true_after_it(world: World):
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann, bob)
    message = await world.send(bob, group.id, "mine")
    async with world.database.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await lock_conversation(connection, ann, group.id)
        waiting = [
            asyncio.create_task(call)
            for call in (
                world.messages.edit_message(bob, message.id, content="late"),
                world.messages.put_reaction(bob, message.id, emoji="x"),
                world.remove(bob, group.id, bob),
            )
        ]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in waiting)
        await connection.execute("DELETE FROM members WHERE conversation_id = $1 AND user_id = $2", group.id, bob)
        await transaction.commit()
    refused = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in refused] == [NotFoundError] * 3
    assert (await world.messages.get_message(ann, message.id)).content == "mine"


async def test_strangers_do_not_wait_for_a_lock(world: World):
    ann, eve = await world.users("ann", "eve")
    group = await world.group(ann)
    message = await world.send(ann, group.id)
    async with world.database.acquire() as connection, connection.transaction():
        await lock_conversation(connection, ann, group.id)
        refused = await asyncio.wait_for(
            in_parallel(
                [
                    world.messages.edit_message(eve, message.id, content="x"),
                    world.conversations.rename(eve, group.id, title="x"),
                    world.conversations.rename(eve, uuid4(), title="x"),
                ]
            ),
            1,
        )
    assert [type(one) for one in refused] == [NotFoundError] * 3
