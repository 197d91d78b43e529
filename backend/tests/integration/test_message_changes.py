"""Editing, deleting and reacting."""

from uuid import UUID

import orjson
import pytest

from app import events
from app.auth import Principal
from app.errors import ForbiddenError, InvalidRequestError, NotFoundError
from app.events import Message
from app.services.message_service import NewMessage
from tests.world import World, in_parallel


@pytest.fixture
async def room(world: World) -> tuple[str, str, UUID, Message]:
    """Ann's group with bob in it, and her first message."""
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann, bob)
    message = await world.send(ann, group.id, "first")
    world.outlet.take()
    return ann, bob, group.id, message


Room = tuple[str, str, UUID, Message]


async def test_an_edit_is_told_to_everyone_under_their_own_numbers(world: World, room: Room):
    ann, bob, group_id, message = room
    edited = await world.messages.edit_message(ann, message.id, content="second")
    assert (edited.content, edited.rev, edited.seq) == ("second", message.rev + 1, message.seq)
    assert edited.edited_at is not None
    told = world.outlet.take()
    assert [(one.event, one.kind, one.number) for one in told] == [("message_edited", "change", 2)] * 2
    assert {one.user_id for one in told} == {ann, bob}
    assert told[0].data == orjson.loads(events.to_json(edited))
    assert await world.messages.get_message(bob, message.id) == edited
    assert await world.head_and_change(bob) == (1, 2)
    assert (await world.conversations.get_conversation(bob, group_id)).rev == edited.rev


async def test_the_same_text_is_no_edit(world: World, room: Room):
    ann, _, _, message = room
    assert await world.messages.edit_message(ann, message.id, content="first") == message
    assert world.outlet.take() == []


async def test_only_its_sender_edits_a_message(world: World, room: Room):
    ann, bob, group_id, message = room
    with pytest.raises(ForbiddenError):
        await world.messages.edit_message(bob, message.id, content="x")
    theirs = await world.send(bob, group_id)
    with pytest.raises(ForbiddenError):
        await world.messages.edit_message(ann, theirs.id, content="an owner does not put words in mouths")


async def test_a_deleted_message_keeps_its_place_and_nothing_else(world: World, room: Room):
    ann, bob, group_id, message = room
    await world.messages.put_reaction(bob, message.id, emoji="👍")
    world.outlet.take()
    await world.messages.delete_message(ann, message.id)
    told = world.outlet.take()
    assert {(one.user_id, one.event, one.data["rev"]) for one in told} == {
        (ann, "message_deleted", 4),
        (bob, "message_deleted", 4),
    }
    assert told[0].data.keys() == {"conversation_id", "message_id", "rev", "deleted_at"}
    tombstone = await world.messages.get_message(bob, message.id)
    assert (tombstone.content, tombstone.seq, tombstone.reactions) == ("", message.seq, [])
    assert tombstone.deleted_at is not None
    stored = await world.database.fetchval("SELECT content FROM messages WHERE id = $1", message.id)
    assert stored == "", "what is deleted is gone from the table, too"
    assert (await world.conversations.get_conversation(bob, group_id)).unread == 1, "deletes leave unread alone"


async def test_a_tombstone_stays_what_it_is(world: World, room: Room):
    ann, bob, _, message = room
    await world.messages.delete_message(ann, message.id)
    world.outlet.take()
    await world.messages.delete_message(ann, message.id)
    await world.messages.delete_reaction(bob, message.id, emoji="👍")
    with pytest.raises(ForbiddenError):
        await world.messages.edit_message(ann, message.id, content="back")
    with pytest.raises(ForbiddenError):
        await world.messages.put_reaction(bob, message.id, emoji="👍")
    with pytest.raises(ForbiddenError):
        await world.messages.delete_message(bob, message.id)
    assert world.outlet.take() == []


async def test_owners_delete_what_others_sent_members_do_not(world: World, room: Room):
    ann, bob, group_id, message = room
    with pytest.raises(ForbiddenError):
        await world.messages.delete_message(bob, message.id)
    theirs = await world.send(bob, group_id)
    await world.messages.delete_message(ann, theirs.id)
    direct = await world.direct(ann, bob)
    in_direct = await world.send(ann, direct.id)
    with pytest.raises(ForbiddenError):
        await world.messages.delete_message(bob, in_direct.id)


async def test_reactions_are_told_as_they_stand(world: World, room: Room):
    """Protocol 3.5: absolute values."""
    ann, bob, _, message = room
    await world.messages.put_reaction(bob, message.id, emoji="👍")
    await world.messages.put_reaction(ann, message.id, emoji="👍")
    await world.messages.put_reaction(ann, message.id, emoji="🎉")
    told = world.outlet.take("reaction_update")
    assert len(told) == 6
    assert told[-1].data["rev"] == message.rev + 3
    assert told[-1].data["reactions"] == [
        {"emoji": "👍", "count": 2, "user_ids": [bob, ann]},
        {"emoji": "🎉", "count": 1, "user_ids": [ann]},
    ]
    await world.messages.delete_reaction(bob, message.id, emoji="👍")
    (last,) = [one for one in world.outlet.take() if one.user_id == bob]
    assert last.data["reactions"][0] == {"emoji": "👍", "count": 1, "user_ids": [ann]}
    assert last.data.keys() == {"conversation_id", "message_id", "rev", "reactions"}
    assert (await world.messages.get_message(ann, message.id)).rev == message.rev + 4


async def test_a_reaction_given_or_taken_twice_is_told_once(world: World, room: Room):
    ann, bob, group_id, message = room
    await in_parallel(world.messages.put_reaction(bob, message.id, emoji="👍") for _ in range(20))
    assert len(world.outlet.take()) == 2
    await in_parallel(world.messages.delete_reaction(bob, message.id, emoji="👍") for _ in range(20))
    assert len(world.outlet.take()) == 2
    assert (await world.conversations.get_conversation(ann, group_id)).rev == message.rev + 2


async def test_a_message_carries_twenty_different_emoji_and_no_more(world: World, room: Room):
    ann, bob, _, message = room
    refused = await in_parallel(world.messages.put_reaction(ann, message.id, emoji=f"e{i}") for i in range(40))
    assert [type(one) for one in refused if one is not None] == [InvalidRequestError] * 20
    kept = (await world.messages.get_message(ann, message.id)).reactions
    assert len(kept) == 20
    await world.messages.put_reaction(bob, message.id, emoji=kept[0].emoji)
    with pytest.raises(InvalidRequestError) as error:
        await world.messages.put_reaction(bob, message.id, emoji="one more")
    assert error.value.fields[0].field == "emoji"


async def test_the_largest_reaction_update_and_message_fit_into_a_frame(world: World):
    names = [f"{number:02}" + "u" * 113 for number in range(30)]
    ann, *others = await world.users("ann", *names)
    group = await world.group(ann, *others)
    message = await world.send(ann, group.id, "\U0001f600" * 9_999)
    world.outlet.take()
    for number in range(20):
        emoji = "\U0001f600" * 15 + f"{number:04}"
        await in_parallel(world.messages.put_reaction(user, message.id, emoji=emoji) for user in others[:20])
        world.outlet.take()  # which asserts that each is a frame
    await world.messages.edit_message(ann, message.id, content="\U0001f600" * 10_000)
    told = world.outlet.take("message_edited")
    assert len(told) == 31
    reactions = told[0].data["reactions"]
    assert [reaction["count"] for reaction in reactions] == [20] * 20
    assert sum(len(reaction["user_ids"]) for reaction in reactions) == events.MAX_REACTION_USER_IDS


async def test_one_users_tabs_edit_at_once_and_every_rev_is_taken_once(world: World, room: Room):
    ann, bob, _, message = room
    edited = await in_parallel(world.messages.edit_message(ann, message.id, content=f"text {i}") for i in range(30))
    assert sorted(one.rev for one in edited) == list(range(message.rev + 1, message.rev + 31))
    told = [one for one in world.outlet.take() if one.user_id == bob]
    assert sorted(one.number for one in told) == list(range(2, 32))
    latest = max(edited, key=lambda one: one.rev)
    assert await world.messages.get_message(bob, message.id) == latest


async def test_a_repeated_send_answers_with_the_message_as_it_now_is(world: World, room: Room):
    ann, bob, group_id, _ = room
    sent = await world.send(bob, group_id, "once", client_message_id=UUID(int=1))
    await world.messages.edit_message(bob, sent.id, content="edited")
    again = NewMessage("once", conversation_id=group_id, client_message_id=UUID(int=1))
    stored, is_new = await world.messages.send_message(Principal(bob), again)
    assert (stored.id, stored.content, is_new) == (sent.id, "edited", False)
    await world.remove(ann, group_id, bob)
    stored, is_new = await world.messages.send_message(Principal(bob), again)
    assert (stored.id, stored.content, is_new) == (sent.id, "edited", False)
    with pytest.raises(NotFoundError):
        await world.messages.get_message(bob, sent.id)
