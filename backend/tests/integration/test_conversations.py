"""Making, listing, naming and reading conversations."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from app.errors import (
    ForbiddenError,
    IdempotencyConflictError,
    InvalidRequestError,
    NotFoundError,
)
from app.services.new_conversations import NewConversation
from tests.world import World, in_parallel


async def test_two_users_have_one_direct_conversation_however_they_open_it(world: World):
    ann, bob = await world.users("ann", "bob")
    opened = await in_parallel(
        world.conversations.create_conversation(user, NewConversation("direct", [other]))
        for user, other in [(ann, bob), (bob, ann)] * 10
    )
    assert len({conversation.id for conversation, _ in opened}) == 1
    assert sum(is_new for _, is_new in opened) == 1
    told = world.outlet.take("conversation_updated")
    assert sorted((one.user_id, one.number, one.data["rev"]) for one in told) == [(ann, 1, 1), (bob, 1, 1)]


async def test_a_direct_conversation_opened_by_a_send_is_the_one_that_is_found(world: World):
    ann, bob = await world.users("ann", "bob")
    made = await world.direct(ann, bob)
    message = await world.send(bob, made.id)
    assert message.seq == 1
    assert message.rev == 2
    assert (await world.direct(bob, ann)).last_message == message


@pytest.mark.parametrize("member_ids, title", [([], None), (["me"], None), (["x", "y"], None), (["x"], "Title")])
async def test_a_direct_conversation_has_one_other_and_no_title(world: World, member_ids: list[str], title: str | None):
    with pytest.raises(InvalidRequestError):
        await world.conversations.create_conversation("me", NewConversation("direct", member_ids, title))


async def test_members_who_are_not_known_are_named_by_their_place(world: World):
    ann, bob = await world.users("ann", "bob")
    new = NewConversation("group", [bob, "nobody", ann, "nobody2"])
    with pytest.raises(InvalidRequestError) as refused:
        await world.conversations.create_conversation(ann, new)
    assert [field.field for field in refused.value.fields] == ["member_ids.1", "member_ids.3"]
    assert "nobody" not in str(refused.value)
    assert await world.database.fetchval("SELECT count(*) FROM conversations WHERE created_by = $1", ann) == 0


async def test_a_group_is_owned_by_its_creator_and_told_to_all(world: World):
    ann, bob, cid = await world.users("ann", "bob", "cid")
    made = await world.group(ann, bob, cid, bob, title="Lunch")
    assert (made.role, made.member_count, made.unread, made.rev) == ("owner", 3, 0, 1)
    assert {member.id: member.role for member in made.members} == {ann: "owner", bob: "member", cid: "member"}
    told = {one.user_id: one for one in world.outlet.take()}
    assert set(told) == {ann, bob, cid}
    assert all(one.number == 1 and one.data["title"] == "Lunch" for one in told.values())
    assert {user_id: one.data["role"] for user_id, one in told.items()} == {ann: "owner", bob: "member", cid: "member"}


async def test_a_groups_key_makes_it_once_for_ever(world: World):
    ann, bob, cid = await world.users("ann", "bob", "cid")
    key = uuid4()
    new = NewConversation("group", [bob, cid], "Lunch", key)
    opened = await in_parallel(world.conversations.create_conversation(ann, new) for _ in range(10))
    assert len({conversation.id for conversation, _ in opened}) == 1
    assert sum(is_new for _, is_new in opened) == 1
    reordered = NewConversation("group", [cid, bob, cid], "Lunch", key)
    assert not (await world.conversations.create_conversation(ann, reordered))[1]
    with pytest.raises(IdempotencyConflictError):
        await world.conversations.create_conversation(ann, NewConversation("group", [bob], "Lunch", key))
    other, is_new = await world.conversations.create_conversation(bob, NewConversation("group", [ann], None, key))
    assert is_new, "a key is its creator's alone"
    group_id = opened[0][0].id
    assert other.id != group_id
    await world.remove(ann, group_id, ann)
    with pytest.raises(NotFoundError):
        await world.conversations.create_conversation(ann, new)


async def test_the_list_pages_by_activity_without_a_gap_or_a_repeat(world: World):
    ann, *others = await world.users("ann", *(f"user{number}" for number in range(12)))
    made = [await world.direct(ann, other) for other in others]
    await world.send(ann, made[3].id)
    listed: list[UUID] = []
    before = None
    while True:
        page = await world.conversations.list_conversations(ann, hidden=False, before=before, limit=5)
        listed += [conversation.id for conversation in page.items]
        assert page.has_more == (page.next_cursor is not None)
        if page.next_cursor is None:
            break
        before = page.next_cursor
    newest_first = [one.id for one in reversed(made)]
    newest_first.remove(made[3].id)
    assert listed == [made[3].id, *newest_first]


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "f" + "_" * 31, "~" * 32, "A" * 33, "A" * 31 + "="])
async def test_a_cursor_that_was_never_given_is_refused(world: World, cursor: str):
    with pytest.raises(InvalidRequestError) as refused:
        await world.conversations.list_conversations("ann", hidden=False, before=cursor, limit=5)
    assert refused.value.fields[0].field == "before"


async def test_own_settings_are_told_to_oneself_alone_without_a_rev(world: World):
    """Protocol 3.7: the form that is not counted."""
    ann, bob = await world.users("ann", "bob")
    made = await world.direct(ann, bob)
    world.outlet.take()
    until = datetime.now(UTC) + timedelta(hours=1)
    changed = await world.conversations.change_own_settings(ann, made.id, muted_until=(until,), hidden=True)
    assert (changed.muted_until, changed.hidden, changed.rev) == (until, True, made.rev)
    (told,) = world.outlet.take()
    assert (told.user_id, told.kind, set(told.data)) == (ann, "ephemeral", {"id", "muted_until", "hidden"})
    await world.conversations.change_own_settings(ann, made.id, hidden=True)
    assert world.outlet.take() == []
    unmuted = await world.conversations.change_own_settings(ann, made.id, muted_until=(None,))
    assert (unmuted.muted_until, unmuted.hidden) == (None, True)


async def test_a_hidden_conversation_is_listed_apart_until_a_message_arrives(world: World):
    ann, bob = await world.users("ann", "bob")
    made = await world.direct(ann, bob)
    await world.conversations.change_own_settings(ann, made.id, hidden=True)

    async def listed(*, hidden: bool) -> list[UUID]:
        page = await world.conversations.list_conversations(ann, hidden=hidden, before=None, limit=5)
        return [conversation.id for conversation in page.items]

    assert await listed(hidden=False) == []
    assert await listed(hidden=True) == [made.id]
    await world.send(bob, made.id)
    assert await listed(hidden=False) == [made.id]


async def test_only_owners_rename_and_the_same_title_is_no_change(world: World):
    ann, bob = await world.users("ann", "bob")
    group = await world.group(ann, bob, title="Lunch")
    world.outlet.take()
    with pytest.raises(ForbiddenError):
        await world.conversations.rename(bob, group.id, title="Dinner")
    assert (await world.conversations.rename(ann, group.id, title="Lunch")).rev == group.rev
    assert world.outlet.take() == []
    renamed = await world.conversations.rename(ann, group.id, title=None)
    assert (renamed.title, renamed.rev) == (None, group.rev + 1)
    told = world.outlet.take()
    assert sorted((one.user_id, one.data["rev"], one.data["title"]) for one in told) == [(ann, 2, None), (bob, 2, None)]
    with pytest.raises(ForbiddenError):
        await world.conversations.rename(ann, (await world.direct(ann, bob)).id, title="x")


async def test_history_pages_both_ways_and_carries_the_rev(world: World):
    ann, bob = await world.users("ann", "bob")
    made = await world.direct(ann, bob)
    sent = [await world.send(ann, made.id, f"{number}") for number in range(7)]

    async def page(**edges: int | None) -> tuple[list[int], str | None]:
        found = await world.conversations.list_messages(
            bob, made.id, before=edges.get("before"), after=edges.get("after"), limit=3
        )
        assert found.rev == 8
        assert found.has_more == (found.next_cursor is not None)
        return [message.seq for message in found.items], found.next_cursor

    assert await page() == ([5, 6, 7], "5")
    assert await page(before=5) == ([2, 3, 4], "2")
    assert await page(before=2) == ([1], None)
    assert await page(before=0) == ([], None)
    assert await page(after=0) == ([1, 2, 3], "3")
    assert await page(after=3) == ([4, 5, 6], "6")
    assert await page(after=6) == ([7], None)
    assert await page(after=7) == ([], None)
    assert await world.all_messages(bob, made.id, limit=2) == sent


async def test_a_conversation_too_big_for_a_frame_is_told_in_short(world: World):
    """Protocol 3.1, 3.7."""
    ann, *others = await world.users("ann", *("u" * 100 + f"{number:02}" for number in range(30)))
    await world.database.fetch(
        "UPDATE users SET name = repeat('\U0001f600', 100), avatar_url = 'https://x/' || repeat('y', 500) "
        "WHERE id = ANY ($1)",
        others,
    )
    group = await world.group(ann, *others)
    message = await world.send(ann, group.id, "\U0001f600" * 9_900)
    await world.database.fetch(
        "INSERT INTO reactions (message_id, user_id, emoji) "
        "SELECT $1, user_id, emoji FROM unnest($2::text[]) AS user_id, unnest($3::text[]) AS emoji",
        message.id,
        others,
        list("abcdef"),
    )
    world.outlet.take()
    renamed = await world.conversations.rename(ann, group.id, title="Big")
    assert {len(one.data) for one in world.outlet.take()} == {2}
    assert renamed.last_message is not None


async def test_strangers_and_absent_conversations_look_the_same(world: World):
    ann, bob, eve = await world.users("ann", "bob", "eve")
    made = await world.group(ann, bob)
    message = await world.send(ann, made.id)
    world.outlet.take()
    service = world.conversations
    for conversation_id in (made.id, uuid4()):
        refused = await in_parallel(
            [
                service.get_conversation(eve, conversation_id),
                service.rename(eve, conversation_id, title="x"),
                service.change_own_settings(eve, conversation_id, hidden=True),
                service.list_messages(eve, conversation_id, before=None, after=None, limit=5),
                service.list_changes(eve, conversation_id, after_rev=0, limit=5),
                service.members.list_members(eve, conversation_id, after=None, limit=5),
                service.members.put_member(eve, conversation_id, user_id=eve, role="owner"),
                service.members.remove_member(eve, conversation_id, user_id=eve),
                service.members.remove_member(eve, conversation_id, user_id=ann),
                service.ephemeral.mark_read(eve, conversation_id, seq=1),
                service.ephemeral.set_typing(eve, conversation_id, is_typing=True),
                world.send(eve, conversation_id),
            ]
        )
        assert [(type(one), str(one)) for one in refused] == [(NotFoundError, str(NotFoundError()))] * 12
    for message_id in (message.id, uuid4()):
        refused = await in_parallel(
            [
                world.messages.get_message(eve, message_id),
                world.messages.edit_message(eve, message_id, content="x"),
                world.messages.delete_message(eve, message_id),
                world.messages.put_reaction(eve, message_id, emoji="x"),
                world.messages.delete_reaction(eve, message_id, emoji="x"),
            ]
        )
        assert [(type(one), str(one)) for one in refused] == [(NotFoundError, str(NotFoundError()))] * 5
    assert world.outlet.take() == []
