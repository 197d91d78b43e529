"""Changes that wait: for a conversation that somebody else holds, and past the deadline of their request."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest

from app import deadline
from app.auth import Principal
from app.db.changes import commit
from app.db.inbox import InboxReader
from app.db.pool import Database
from app.db.sends import held_rows, send_batch
from app.db.turns import MAX_CHANGES, ROW_SECONDS, Turns
from app.errors import NotFoundError, UnavailableError
from app.services.messaging.publisher import Publisher
from app.services.send_queue import SendQueue
from app.services.user_service import UserService
from tests.batches import new_send
from tests.world import World, in_parallel

if TYPE_CHECKING:
    from app.db.pool import Connection

REACTORS = 40
HELD_SECONDS = 4.0


@asynccontextmanager
async def _held(world: World, conversation_id: UUID) -> AsyncIterator[asyncpg.Connection]:
    """Hold a conversation's row, as a foreign program would, until the block ends."""
    holder = await asyncpg.connect(world.database.url)
    try:
        await holder.execute("BEGIN")
        await holder.fetch("SELECT FROM conversations WHERE id = $1 FOR NO KEY UPDATE", conversation_id)
        yield holder
    finally:
        await holder.close()


async def test_a_conversation_that_is_held_costs_those_alone_who_change_it(world):
    """Protocol 2.5, 8.2: reads, head checks and changes elsewhere go on; who waits in vain hears so within 5 s."""
    ada, bob, cleo = await world.users("ada", "bob", "cleo")
    held, free = await world.group(ada, bob), await world.group(ada, cleo)
    message, other = await world.send(ada, held.id), await world.send(ada, free.id)
    users, inbox = UserService(world.database, Publisher(world.outlet)), InboxReader(world.database)
    waits: dict[str, list[float]] = {"in vain": [], "reads": [], "changes": []}

    async def timed(name: str, work) -> None:
        began_at = time.monotonic()
        try:
            await work
        finally:
            waits[name].append(time.monotonic() - began_at)

    async def react(number: int, until: float) -> None:
        while time.monotonic() < until:
            with pytest.raises(UnavailableError), deadline.within(5):
                await timed("in vain", world.messages.put_reaction(bob, message.id, emoji=f"e{number % 15}"))
            await asyncio.sleep(1)

    async with _held(world, held.id):
        until = time.monotonic() + HELD_SECONDS
        reactors = [asyncio.create_task(react(number, until)) for number in range(REACTORS)]
        await asyncio.sleep(0.2)
        with pytest.raises(NotFoundError):  # a stranger does not even wait
            await asyncio.wait_for(world.messages.put_reaction(cleo, message.id, emoji="x"), 1)
        while time.monotonic() < until:
            await asyncio.gather(
                timed("reads", users.recognize(Principal(cleo))),
                timed("reads", inbox.fetch_heads([cleo])),
                timed("reads", inbox.fetch_messages_after(cleo, 0)),
                timed("changes", world.messages.edit_message(ada, other.id, content=f"{time.monotonic()}")),
            )
            await asyncio.sleep(0.05)
        await asyncio.gather(*reactors)
    assert len(waits["in vain"]) >= REACTORS
    assert max(waits["in vain"]) < 5.5
    assert max(waits["reads"] + waits["changes"]) < 1
    await world.messages.put_reaction(bob, message.id, emoji="free")


async def test_conversations_that_are_held_leave_connections_to_the_others(world):
    """Protocol 8.2: more of them than changes there may be at once."""
    ada, bob = await world.users("ada", "bob")
    groups = [await world.group(ada, bob) for _ in range(MAX_CHANGES + 2)]
    holder = await asyncpg.connect(world.database.url)
    try:
        await holder.execute("BEGIN")
        await holder.fetch("SELECT FROM conversations WHERE created_by = $1 FOR NO KEY UPDATE", ada)
        renaming = [asyncio.create_task(world.conversations.rename(ada, group.id, title="x")) for group in groups * 4]
        await asyncio.sleep(0.3)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        assert await world.database.fetchval(waiting) == MAX_CHANGES
        await holder.execute("ROLLBACK")
        assert {renamed.title for renamed in await asyncio.gather(*renaming)} == {"x"}
    finally:
        await holder.close()


async def test_turns_of_conversations_that_nobody_changes_are_forgotten(world):
    """At once, also those that met a held row: nothing is left to the collector of cycles."""
    ada, bob = await world.users("ada", "bob")
    group = await world.group(ada, bob)
    gc.collect()
    gc.disable()
    try:
        async with _held(world, group.id):
            renames = [asyncio.create_task(world.conversations.rename(ada, group.id, title=f"{n}")) for n in range(20)]
            await asyncio.sleep(3 * ROW_SECONDS)
        await asyncio.gather(*renames)
        del renames
        assert len(world.database.turns._of_one) == 0
    finally:
        gc.enable()


async def test_who_gives_up_waiting_for_a_turn_takes_it_from_nobody():
    turns, conversation_id, is_over = Turns(), UUID(int=1), asyncio.Event()

    async def take() -> str:
        return "taken"

    first = asyncio.create_task(turns.run(is_over.wait, conversation_id))
    await asyncio.sleep(0)
    with deadline.within(0.05):
        late = asyncio.create_task(turns.run(take, conversation_id))
    patient = asyncio.create_task(turns.run(take, conversation_id))
    gone = asyncio.create_task(turns.run(take, conversation_id))
    await asyncio.sleep(0.1)
    gone.cancel()
    with pytest.raises(UnavailableError):
        await late
    is_over.set()
    await first
    assert await asyncio.wait_for(patient, 1) == "taken"
    assert turns._changes.all._value == MAX_CHANGES


async def test_heads_that_are_held_do_not_keep_the_changes_of_others_from_their_turn(world, meter):
    """Protocol 2.5: 16 conversations with one user whose inbox head somebody holds; nobody else has that user."""
    ada, bob, cleo, held = await world.users("ada", "bob", "cleo", "held")
    groups = [await world.group(ada, held) for _ in range(16)]
    free = await world.group(bob, cleo)
    holder = await asyncpg.connect(world.database.url)
    try:
        await holder.execute("BEGIN")
        await holder.execute("UPDATE inbox_heads SET head = head WHERE user_id = $1", held)
        with deadline.within(5):
            renaming = [asyncio.create_task(world.conversations.rename(ada, g.id, title="x")) for g in groups]
        await asyncio.sleep(0.2)
        waits = []
        for number in range(8):
            began_at = time.monotonic()
            await world.conversations.rename(bob, free.id, title=f"{number}")
            waits.append(time.monotonic() - began_at)
            await asyncio.sleep(0.1)
        assert max(waits) < 2 + meter.longest()
        assert sorted(waits)[4] < 0.5 + meter.longest()  # once it is known which rows are held
        await holder.execute("ROLLBACK")  # and those who waited go on
        assert {renamed.title for renamed in await asyncio.gather(*renaming)} == {"x"}
    finally:
        await holder.close()


async def test_read_positions_that_are_held_keep_no_others_from_moving(world, meter):
    """Protocol 2.5: the members of one group are held, and all of them read."""
    ada, *others = await world.users("ada", *(f"user{n}" for n in range(10)))
    held, free = await world.group(ada, *others), await world.group(ada, *others)
    for group in (held, free):
        await world.send(ada, group.id)
    mark_read = world.conversations.ephemeral.mark_read
    holder = await asyncpg.connect(world.database.url)
    try:
        await holder.execute("BEGIN")
        await holder.execute("UPDATE members SET role = role WHERE conversation_id = $1", held.id)
        with deadline.within(5):
            waiting = [asyncio.create_task(mark_read(user, held.id, seq=1)) for user in others]
        await asyncio.sleep(1)
        for user in others:
            began_at = time.monotonic()
            assert (await mark_read(user, free.id, seq=1)).unread == 0
            assert time.monotonic() - began_at < 1 + meter.longest()
        await holder.execute("ROLLBACK")
        assert {state.unread for state in await asyncio.gather(*waiting)} == {0}
    finally:
        await holder.close()


async def test_whatever_waits_for_a_row_leaves_connections_to_the_others(world, meter):
    """Protocol 8.2: own settings, read positions and profiles wait for rows as well as changes do."""
    ada, *others = await world.users("ada", *(f"user{n}" for n in range(20)))
    group = await world.group(ada, *others)
    await world.send(ada, group.id)
    users = UserService(world.database, Publisher(world.outlet))
    async with _held(world, group.id) as holder:
        await holder.execute("UPDATE members SET role = role WHERE conversation_id = $1", group.id)
        await holder.fetch("SELECT FROM users WHERE id = ANY ($1) FOR NO KEY UPDATE", others)
        with deadline.within(5):
            calls = [
                *(world.conversations.change_own_settings(user, group.id, hidden=True) for user in others),
                *(world.conversations.ephemeral.mark_read(user, group.id, seq=1) for user in others),
                *(users.put_user(user, name="new", avatar_url=None) for user in others),
            ]
            waiting = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.5)
        for _ in range(10):
            began_at = time.monotonic()
            assert await world.database.fetchval("SELECT 1") == 1
            assert time.monotonic() - began_at < 0.5 + meter.longest()
            await asyncio.sleep(0.1)
        await holder.execute("ROLLBACK")
        assert [one for one in await in_parallel(waiting) if isinstance(one, Exception)] == []


# --- After the answer ----------------------------------------------------------------------------


async def test_a_change_whose_lock_comes_after_its_answer_is_not_made(world):
    """Protocol 8.2: another may have been made, and confirmed, that it would overwrite."""
    ada, bob = await world.users("ada", "bob")
    group = await world.group(ada, bob)
    message = await world.send(ada, group.id, "as it was")
    async with _held(world, group.id) as holder:
        with deadline.within(0.3):
            changes = [
                asyncio.create_task(world.messages.edit_message(ada, message.id, content="late")),
                asyncio.create_task(world.conversations.rename(ada, group.id, title="late")),
            ]
        await asyncio.sleep(0.5)
        await holder.execute("ROLLBACK")
        assert [type(error) for error in await in_parallel(changes)] == [UnavailableError] * 2
    assert (await world.messages.get_message(ada, message.id)).content == "as it was"
    assert (await world.conversations.get_conversation(ada, group.id)).title == "Lunch"


async def test_nothing_is_begun_after_the_answer(world):
    """Protocol 8.2: not where no connection was free, nor the second attempt of a transaction."""
    ran = []

    async def work(connection: Connection) -> None:
        ran.append(connection)
        await asyncio.sleep(0.2)
        raise asyncpg.SerializationError

    narrow = Database(world.database.url, max_size=1)
    try:
        async with narrow.acquire():
            began_at = time.monotonic()
            with pytest.raises(UnavailableError), deadline.within(0.1):
                await commit(narrow, work)
            assert time.monotonic() - began_at < 0.5
        assert ran == []
        with pytest.raises(UnavailableError), deadline.within(0.1):
            await commit(narrow, work)
        assert len(ran) == 1
        with deadline.within(0), pytest.raises(UnavailableError):
            await narrow.fetchval("SELECT 1")
        assert await narrow.fetchval("SELECT 1") == 1
    finally:
        await narrow.close()


async def test_what_works_for_many_has_the_deadline_of_none(world):
    """Protocol 8.2: the sends and reads of others do not end with the request that came first."""
    ada, bob = await world.users("ada", "bob")
    reader = InboxReader(world.database)
    left = []

    async def note(connection, sends, lock_timeout_ms):
        left.append(deadline.seconds_left())
        return await send_batch(connection, sends, lock_timeout_ms=lock_timeout_ms)

    queue = SendQueue(world.database, commit=note, ask=held_rows)
    try:
        with deadline.within(0.001):
            asking = asyncio.create_task(reader.fetch_messages_after(ada, 0))
            sending = asyncio.create_task(queue.submit(new_send(ada, recipient_id=bob)))
        missed, (sent, _) = await asyncio.gather(asking, sending)
    finally:
        await queue.close()
    assert missed is not None
    assert sent.outcome == "created"
    assert left == [float("inf")]
