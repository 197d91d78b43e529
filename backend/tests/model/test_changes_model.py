"""The promise of `changes`: after any history, what a client holds is what a fresh client would load."""

import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from app.embedded import PostgresProcess
from app.errors import GaplessError, NotFoundError
from tests.model.client_copy import Client, plain
from tests.world import World, in_parallel, new_world

HISTORIES_PER_TEST = 10
STEPS = 40


@pytest.fixture(scope="module")
async def world(postgres: PostgresProcess, template: str) -> AsyncIterator[World]:
    async with new_world(postgres.url.rpartition("/")[0] + "/" + template) as world:
        yield world


@pytest.mark.parametrize("block", range(10))
async def test_a_copy_ends_like_a_fresh_one(world: World, block: int):
    """Protocol 6.4, 6.5, 6.6."""
    for number in range(HISTORIES_PER_TEST):
        seed = block * HISTORIES_PER_TEST + number
        history = History(world, random.Random(seed))
        await history.begin()
        for step in range(STEPS):
            await history.step()
            if step % 10 == 9:
                await history.check(f"seed {seed}, step {step}")
        await history.check_after_everyone_returned(f"seed {seed}")


async def test_the_check_sees_a_copy_that_was_not_told(world: World):
    """A check that cannot fail proves nothing: change the tables behind everyone's back."""
    history = History(world, random.Random(1))
    await history.begin()
    for _ in range(STEPS):
        await history.step()
    await world.database.fetch("UPDATE messages SET content = content || 'x' WHERE deleted_at IS NULL")
    with pytest.raises(AssertionError, match="seed 1"):
        await history.check_after_everyone_returned("seed 1")


class History:
    """Four users with clients that come and go, a direct conversation and two groups."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.clients: dict[str, Client] = {}
        self.conversations: list[UUID] = []
        self.direct_id = UUID(int=0)

    async def begin(self) -> None:
        ann, bob, *others = users = await self.world.users("ann", "bob", "cid", "dan")
        direct = await self.world.direct(ann, bob)
        groups = [await self.world.group(ann, *others), await self.world.group(bob, ann)]
        self.direct_id = direct.id
        self.conversations = [direct.id, *(group.id for group in groups)]
        self.world.outlet.take()
        for user in users:
            self.clients[user] = Client(self.world, user)
            await self.clients[user].connect()

    async def step(self) -> None:
        """Do one thing, or several at once; then let the frames arrive, or not."""
        if self.chance.random() < 0.15:
            await self._come_or_go()
        else:
            acts = [self._act() for _ in range(3 if self.chance.random() < 0.15 else 1)]
            for outcome in await in_parallel(acts):
                if isinstance(outcome, Exception) and not isinstance(outcome, GaplessError):
                    raise outcome
        await self._deliver()

    async def check(self, moment: str) -> None:
        """Whoever is online holds what there is, once the heartbeat has looked."""
        for client in self.clients.values():
            if client.is_online:
                await client.check_head()
                await self._compare(client, moment, with_positions=False)

    async def check_after_everyone_returned(self, moment: str) -> None:
        for client in self.clients.values():
            await client.connect()
            await self._compare(client, moment, with_positions=True)

    async def _come_or_go(self) -> None:
        client = self.chance.choice(list(self.clients.values()))
        if client.is_online:
            client.is_online = False
        else:
            await client.connect()

    async def _deliver(self) -> None:
        for told in self.world.outlet.take():
            client = self.clients.get(told.user_id)
            if client is not None and client.is_online and self.chance.random() < 0.93:
                await client.hear(told)

    async def _act(self) -> None:
        user, other = self.chance.sample(list(self.clients), 2)
        conversation_id = self.chance.choice(self.conversations)
        act = self.chance.choice([self._write] * 3 + [self._change_message] * 5 + [self._change_conversation] * 3)
        await act(user, other, conversation_id)

    async def _write(self, user: str, other: str, conversation_id: UUID) -> None:
        if self.chance.random() < 0.7:
            await self.world.send(user, conversation_id, f"text {self.chance.random()}")
        else:
            seq = self.chance.randint(0, 12)
            await self.world.conversations.ephemeral.mark_read(user, conversation_id, seq=seq)

    async def _change_message(self, user: str, other: str, conversation_id: UUID) -> None:
        sent = await self.world.all_messages(user, conversation_id)
        if not sent:
            return
        message = self.chance.choice(sent)
        emoji = self.chance.choice("xyz")
        kind = self.chance.choice(["edit", "edit", "delete", "react", "react", "unreact"])
        if kind == "edit":
            text = f"edited {self.chance.random()}"
            await self.world.messages.edit_message(message.sender.id, message.id, content=text)
        elif kind == "delete":
            await self.world.messages.delete_message(message.sender.id, message.id)
        elif kind == "react":
            await self.world.messages.put_reaction(user, message.id, emoji=emoji)
        else:
            await self.world.messages.delete_reaction(user, message.id, emoji=emoji)

    async def _change_conversation(self, user: str, other: str, conversation_id: UUID) -> None:
        kind = self.chance.choice(["title", "add", "add", "remove", "role", "leave"])
        if kind == "title":
            title = f"title {self.chance.random()}"
            await self.world.conversations.rename(user, conversation_id, title=title)
        elif kind == "remove":
            await self.world.remove(user, conversation_id, other)
        elif kind == "leave":
            await self.world.remove(user, conversation_id, user)
        else:
            role = None if kind == "add" else self.chance.choice(["owner", "member"])
            await self.world.add(user, conversation_id, other, role)

    async def _compare(self, client: Client, moment: str, *, with_positions: bool) -> None:
        for conversation_id in self.conversations:
            held = client.copies.get(conversation_id)
            fresh = await self._fresh(client.user_id, conversation_id)
            assert (held is None) == (fresh is None), f"{moment}: {client.user_id}"
            if held is None or fresh is None:
                continue
            window = [one for one in fresh["messages"] if one["seq"] >= held.lowest_seq]
            ours = sorted(held.messages.values(), key=lambda one: one["seq"])
            assert ours == window, f"{moment}: {client.user_id}"
            assert (held.title, held.roles) == (fresh["title"], fresh["roles"]), f"{moment}: {client.user_id}"
            assert held.rev <= fresh["rev"], f"{moment}: {client.user_id}"
            if with_positions:
                assert (held.rev, held.positions) == (fresh["rev"], fresh["positions"]), f"{moment}: {client.user_id}"

    async def _fresh(self, user: str, conversation_id: UUID) -> dict[str, Any] | None:
        try:
            conversation = await self.world.conversations.get_conversation(user, conversation_id)
        except NotFoundError:
            return None
        return {
            "rev": conversation.rev,
            "title": conversation.title,
            "roles": {member.id: member.role for member in conversation.members},
            "positions": {member.id: member.last_read_seq for member in conversation.members},
            "messages": plain(await self.world.all_messages(user, conversation_id)),
        }
