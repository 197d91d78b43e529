"""Calls of `send_batch` as the send queue makes them, and the check that nothing is missing or twice."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import uuid4

import asyncpg
from uuid_utils.compat import uuid7

from app.db.pool import UNAVAILABLE
from app.db.sends import Send, SendOutcome, send_batch
from app.errors import UnavailableError
from tests.world import World

Connection = Annotated["asyncpg.Connection[asyncpg.Record]", "a writer"]
Batch = Callable[..., Awaitable[list[SendOutcome]]]


class Connections:
    """The port of the send queue to its connections, for models of PostgreSQL that need none."""

    async def connect(self, **_: str) -> Any:
        return SimpleNamespace(is_closed=lambda: False, terminate=lambda: None, close=_closed)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        try:
            yield self
        except UNAVAILABLE as error:
            raise UnavailableError from error


async def _closed(**_: object) -> None: ...


def new_send(sender: str, **fields: Any) -> Send:
    """A send to `conversation_id` or `recipient_id`, with fresh ids and whatever else is given."""
    defaults: dict[str, Any] = {
        "message_id": uuid7(),
        "client_message_id": uuid4(),
        "request_hash": b"hash",
        "content": "hello",
        "conversation_id": None,
        "recipient_id": None,
        "reply_to_id": None,
        "new_conversation_id": uuid7(),
        "token_issued_at": None,
    }
    return Send(sender_id=sender, **defaults | fields)


@asynccontextmanager
async def writers(world: World, count: int) -> AsyncIterator[list[Connection]]:
    connections = [await world.database.connect() for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.terminate()


async def patient(connection: Connection, sends: Sequence[Send]) -> list[SendOutcome]:
    """What the queue does: run it again when PostgreSQL asks, or when a loaded machine ran out of time."""
    for _ in range(20):
        try:
            return await send_batch(connection, sends, lock_timeout_ms=2000)
        except (asyncpg.SerializationError, asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):
            await asyncio.sleep(random.uniform(0.001, 0.01))
    raise AssertionError("never came through")


async def assert_dense(world: World) -> None:
    """Check every log of the database: seqs from 1 to the head without a hole, nothing twice."""
    heads = """
        SELECT h.user_id FROM inbox_heads AS h LEFT JOIN inbox AS i ON i.user_id = h.user_id
        GROUP BY h.user_id HAVING count(i.seq) <> h.head OR coalesce(max(i.seq), 0) <> h.head
            OR count(DISTINCT i.message_id) <> count(i.message_id)"""
    assert await world.database.fetch(heads) == []
    conversations = """
        SELECT c.id FROM conversations AS c LEFT JOIN messages AS m ON m.conversation_id = c.id
        GROUP BY c.id HAVING count(m.seq) <> c.last_seq OR coalesce(max(m.seq), 0) <> c.last_seq
            OR coalesce(max(m.rev), 0) > c.rev OR count(DISTINCT m.rev) <> count(m.rev)"""
    assert await world.database.fetch(conversations) == []
