"""The services on a real PostgreSQL, with a list where Redis would be: for tests of rules and SQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson

from app import events
from app.auth import Principal
from app.db import users
from app.db.changes import commit
from app.db.pool import Database
from app.events import Conversation, Message
from app.services.conversation_service import ConversationService
from app.services.message_service import MessageService, NewMessage
from app.services.messaging.publisher import Publisher
from app.services.new_conversations import NewConversation
from app.services.user_service import UserService
from app.settings import AppEnv, Settings


@dataclass(frozen=True, slots=True)
class Told:
    """One frame that one user was sent, read as a client reads it; `number` is a seq, a change or 0."""

    user_id: str
    kind: str
    number: int
    event: str
    data: Any


@dataclass(slots=True)
class ListOutlet:
    """The port to Redis, kept in a list."""

    told: list[Told] = field(default_factory=list)

    def publish(self, channel: bytes, frame: bytes) -> None:
        parsed = events.parse_frame(frame)
        assert parsed is not None, frame
        lines = dict(line.split(": ", 1) for line in frame.decode().splitlines() if ": " in line[:7])
        user_id = channel.decode().removeprefix("user:")
        self.told.append(Told(user_id, parsed.kind, parsed.number, lines["event"], orjson.loads(lines["data"])))

    def take(self, event: str | None = None) -> list[Told]:
        """Forget what was told, and return it, or that of one event."""
        told, self.told = self.told, []
        return [one for one in told if event in {None, one.event}]


class World:
    """Users by name, what they do, and what they were told."""

    def __init__(self, database: Database, *, max_group_members: int = 1000) -> None:
        self.database = database
        self.outlet = ListOutlet()
        publisher = Publisher(self.outlet)
        settings = Settings(app_env=AppEnv.DEVELOPMENT, max_group_members=max_group_members)
        self.messages = MessageService(database, publisher, UserService(database, publisher))
        self.conversations = ConversationService(database, publisher, settings)

    async def users(self, *names: str) -> list[str]:
        """Make users whose ids begin with these names and are nobody else's."""
        suffix = uuid4().hex[:12]
        ids = [f"{name}-{suffix}" for name in names]
        await commit(self.database, lambda connection: users.ensure(connection, ids))
        return ids

    async def group(self, owner: str, *others: str, title: str | None = "Lunch") -> Conversation:
        new = NewConversation("group", list(others), title, uuid4())
        made, is_new = await self.conversations.create_conversation(owner, new)
        assert is_new
        return made

    async def direct(self, user: str, other: str) -> Conversation:
        new = NewConversation("direct", [other])
        return (await self.conversations.create_conversation(user, new))[0]

    async def send(self, sender: str, conversation_id: UUID, content: str = "hello", **more: Any) -> Message:
        new = NewMessage(content, conversation_id=conversation_id, **more)
        message, _ = await self.messages.send_message(Principal(sender), new)
        return message

    async def add(self, owner: str, conversation_id: UUID, user: str, role: str | None = None) -> None:
        await self.conversations.members.put_member(owner, conversation_id, user_id=user, role=role)

    async def remove(self, actor: str, conversation_id: UUID, user: str) -> None:
        await self.conversations.members.remove_member(actor, conversation_id, user_id=user)

    async def all_messages(self, user: str, conversation_id: UUID, *, limit: int = 100) -> list[Message]:
        """Read the whole history, page by page from the newest."""
        found: list[Message] = []
        before: int | None = None
        while True:
            page = await self.conversations.list_messages(user, conversation_id, before=before, after=None, limit=limit)
            found = page.items + found
            if page.next_cursor is None:
                return found
            before = int(page.next_cursor)

    async def head_and_change(self, user: str) -> tuple[int, int]:
        row = await self.database.fetchrow("SELECT head, change FROM inbox_heads WHERE user_id = $1", user)
        assert row is not None
        return row["head"], row["change"]


@asynccontextmanager
async def new_world(template_url: str, **settings: Any) -> AsyncIterator[World]:
    """Open the services on a copy of a migrated database, and drop that in the end."""
    server, _, template = template_url.rpartition("/")
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(f"{server}/postgres")
    await admin.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"')
    database = Database(f"{server}/{name}")
    world = World(database, **settings)
    try:
        yield world
    finally:
        await world.messages.send_queue.close()
        await database.close()
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def in_parallel(calls: Iterable[Any]) -> list[Any]:
    """Run everything at once; what was raised stands in the place of its result."""
    return await asyncio.gather(*calls, return_exceptions=True)
