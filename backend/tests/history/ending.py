"""The end of a run, healed and idle: a last word to everybody, then what REST says to whom."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.history.device import Device
from tests.history.load import Load
from tests.history.plan import Send, Talk, new_key
from tests.history.records import LARGE_GROUP_MEMBERS, Listed, Message, View

if TYPE_CHECKING:
    from tests.history.run import Run

AT_ONCE = 16
# Of a conversation, besides its owner and whoever was away from it: one request for every page of each.
READERS = 2


async def say_last_words(load: Load, run: Run, settle_seconds: float) -> None:
    """Send a last message to every conversation and wait until every device has it.

    Where changes are played it gets a reaction, too: with its number every missing one before it is a hole.
    """
    rng = random.Random(run.plan.seed + 4)
    last = {talk.number: Send(0, talk.number, talk.members[0], new_key(rng), "the last") for talk in run.plan.talks}
    keys: dict[str, list[str]] = {user: [] for user in run.plan.users}
    for talk in run.plan.talks:
        for member in talk.members:
            keys[member].append(last[talk.number].key)
    for device in run.devices:
        expected = keys[device.user]
        device.expect(expected, reacted=expected if run.watches_changes else ())

    async def say(send: Send) -> None:
        message_id = await load.send(send)
        if message_id is not None and run.watches_changes:
            await load.react(message_id, send.sender)

    async def arrived(device: Device) -> None:
        await device.has_expected.wait()
        await device.until_quiet()

    await each_of(last.values(), say)
    await _some_time((arrived(device) for device in run.present), settle_seconds)
    # Later a device may find them by REST, and nobody would know that its stream stood still.
    run.history.unheard |= {device.name: device.unheard for device in run.present if device.unheard}


async def list_conversations(run: Run, settle_seconds: float) -> None:
    """Read the list of every user; devices that no receipt told how far others have read ask for it."""

    async def read(user: str) -> None:
        run.history.listings[user] = await run.rest.listed(user)

    await each_of(run.plan.users, read)
    positions: dict[str, dict[str, int]] = defaultdict(dict)
    for user, listing in run.history.listings.items():
        for listed in listing:
            positions[listed.conversation_id][user] = listed.last_read_seq
    refreshes = []
    for device in run.present:
        behind = _behind(device, run.history.listings[device.user], positions)
        run.history.positions_asked += sum(behind.values())
        if behind:
            refreshes.append(device.refresh(sorted(behind)))
    await _some_time(refreshes, settle_seconds)


async def read_conversations(run: Run) -> None:
    """Read every conversation through its owner, who was there all the time, and through some others."""
    known: dict[str, Message] = {}

    async def read_store(talk: Talk) -> None:
        async for message in run.rest.messages(talk.members[0], run.conversations[talk.number]):
            known[message.id] = message
            run.history.store.append(message)

    async def read_view(reader: tuple[str, str]) -> None:
        user, conversation_id = reader
        messages = [message async for message in run.rest.messages(user, conversation_id)]
        # What is equal is kept once.
        shown = (known[each.id] if known.get(each.id) == each else each for each in messages)
        run.history.views.append(View(user, conversation_id, tuple(shown)))

    await each_of(run.plan.talks, read_store)
    await each_of(_readers(run), read_view)


async def each_of(items, work) -> None:
    """Work on all, some at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item) -> None:
        async with gate:
            await work(item)

    await asyncio.gather(*(one(item) for item in items))


def _behind(device: Device, listing: Iterable[Listed], positions: dict[str, dict[str, int]]) -> dict[str, int]:
    """By conversation, how many positions the device shows lower than they are."""
    behind: Counter[str] = Counter()
    for listed in listing:
        readers = positions[listed.conversation_id]
        for user, seq in readers.items():
            is_told = user == device.user or len(readers) <= LARGE_GROUP_MEMBERS
            if is_told and device.copies.positions.get((listed.conversation_id, user), 0) < seq:
                behind[listed.conversation_id] += 1
    return behind


def _readers(run: Run) -> list[tuple[str, str]]:
    """Whoever came back to a conversation, and of the others those who have been asked least so far."""
    listed = {(user, one.conversation_id) for user, listing in run.history.listings.items() for one in listing}
    periods = Counter((each.user, each.conversation_id) for each in run.history.memberships)
    asked: Counter[str] = Counter()
    readers = []
    for talk in run.plan.talks:
        conversation_id = run.conversations[talk.number]
        others = [user for user in talk.members[1:] if (user, conversation_id) in listed]
        others.sort(key=lambda user: asked[user])
        always = [user for user in others if periods[user, conversation_id] == 1][:READERS]
        chosen = always + [user for user in others if periods[user, conversation_id] > 1]
        asked.update(chosen)
        readers += [(user, conversation_id) for user in chosen]
    return readers


async def _some_time(waits, seconds: float) -> None:
    """Wait for all, and for none of them longer than that; what is missing then is the checker's."""
    waiting = [asyncio.ensure_future(each) for each in waits]
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*waiting)
