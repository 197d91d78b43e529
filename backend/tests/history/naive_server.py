"""A chat server as tutorials build it, to be found guilty: the interface of the real one, few of its rules.

Each naivety is switched on by its name in NAIVETIES; without any the server is meant to be right. One
process, one Redis connection, everything in schema `naive` of DATABASE_URL.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import asyncpg
import jwt
import orjson
import redis.asyncio
import uvicorn
from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import StreamingResponse

QUERY_THEN_SUBSCRIBE = "query_then_subscribe"  # what is published in between is in neither
SEQUENCE_IDS = "sequence_ids"  # `id > last`, though ids are taken before they become visible
PUBLISH_BEFORE_COMMIT = "publish_before_commit"  # what is published may never be
NO_REPAIR = "no_repair"  # what Redis loses stays lost
NAIVETIES = (QUERY_THEN_SUBSCRIBE, SEQUENCE_IDS, PUBLISH_BEFORE_COMMIT, NO_REPAIR)

TICK_SECONDS = 0.5
COMMAND_SECONDS = 5
SCHEMA = """
    CREATE SCHEMA naive;
    CREATE SEQUENCE naive.ids;
    CREATE TABLE naive.conversations (id uuid PRIMARY KEY, key text UNIQUE, kind text, last_seq bigint DEFAULT 0);
    CREATE TABLE naive.members (conversation_id uuid, user_id text, PRIMARY KEY (conversation_id, user_id));
    CREATE TABLE naive.heads (user_id text PRIMARY KEY, head bigint NOT NULL DEFAULT 0);
    CREATE TABLE naive.messages (
        id uuid PRIMARY KEY, conversation_id uuid, seq bigint, sender_id text, key text, content text,
        UNIQUE (sender_id, key));
    CREATE INDEX ON naive.messages (conversation_id, seq);
    CREATE TABLE naive.inbox (user_id text, seq bigint, message_id uuid, PRIMARY KEY (user_id, seq));
"""


class NaiveServer:
    """The pool, the hub, and how a message is written and read."""

    def __init__(self, naiveties: frozenset[str]) -> None:
        self.naiveties = naiveties
        # Two publishes of one user in another order than their commits would be a naivety of their own.
        self.order = asyncio.Lock()
        self.pool: asyncpg.Pool
        self.redis: redis.asyncio.Redis

    @asynccontextmanager
    async def opened(self, app: FastAPI) -> AsyncIterator[None]:
        self.pool = await asyncpg.create_pool(
            os.environ["DATABASE_URL"], min_size=4, max_size=20, command_timeout=COMMAND_SECONDS
        )
        await self.pool.execute(SCHEMA)
        self.redis = redis.asyncio.from_url(os.environ["REDIS_URL"])
        yield
        await self.redis.aclose()
        self.pool.terminate()

    # --- Writing ---------------------------------------------------------------------------------

    async def send(self, sender: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        key = body["client_message_id"]
        async with self.pool.acquire() as connection:
            stored = await connection.fetchrow(
                "SELECT * FROM naive.messages WHERE sender_id = $1 AND key = $2", sender, key
            )
            if stored is not None:
                return 200, message_of(stored)
            transaction = connection.transaction()
            await transaction.start()
            try:
                row, seqs = await self.insert(connection, sender, body)
                if PUBLISH_BEFORE_COMMIT in self.naiveties:
                    await self.publish(row, seqs)
                    await transaction.commit()
                else:
                    async with self.order:
                        await transaction.commit()
                        await self.publish(row, seqs)
            except asyncpg.PostgresError:
                with suppress(asyncpg.InterfaceError, asyncpg.PostgresError):
                    await transaction.rollback()
                return 503, {}
        return 201, message_of(row)

    async def insert(self, connection: Any, sender: str, body: dict[str, Any]) -> tuple[asyncpg.Record, dict[str, int]]:
        """Insert a message, and give the seq that it has in the inbox of each member."""
        conversation_id = body.get("conversation_id") or direct_id(sender, body["recipient_id"])
        if SEQUENCE_IDS in self.naiveties:
            seq = await connection.fetchval("SELECT nextval('naive.ids')")
        else:
            seq = await connection.fetchval(
                "UPDATE naive.conversations SET last_seq = last_seq + 1 WHERE id = $1 RETURNING last_seq",
                conversation_id,
            )
        row = await connection.fetchrow(
            "INSERT INTO naive.messages VALUES ($1, $2, $3, $4, $5, $6) RETURNING *",
            uuid.uuid4(), conversation_id, seq, sender, body["client_message_id"], body["content"],
        )  # fmt: skip
        members = await connection.fetch(
            "SELECT user_id FROM naive.members WHERE conversation_id = $1 ORDER BY user_id", conversation_id
        )
        users = [member["user_id"] for member in members]
        if SEQUENCE_IDS in self.naiveties:
            return row, dict.fromkeys(users, seq)
        await connection.execute("SELECT 1 FROM naive.heads WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE", users)
        heads = await connection.fetch(
            "UPDATE naive.heads SET head = head + 1 WHERE user_id = ANY($1) RETURNING user_id, head", users
        )
        seqs = {head["user_id"]: head["head"] for head in heads}
        await connection.executemany(
            "INSERT INTO naive.inbox VALUES ($1, $2, $3)", [(user, seq, row["id"]) for user, seq in seqs.items()]
        )
        return row, seqs

    async def publish(self, row: asyncpg.Record, seqs: dict[str, int]) -> None:
        pipeline = self.redis.pipeline(transaction=False)
        for user, seq in seqs.items():
            pipeline.execute_command("PUBLISH", f"user:{user}", frame(seq, row))
        with suppress(redis.RedisError, OSError):
            await pipeline.execute()

    # --- Reading ---------------------------------------------------------------------------------

    async def missed(self, user: str, last: int) -> list[tuple[int, bytes]]:
        if SEQUENCE_IDS in self.naiveties:
            sql = """SELECT m.*, m.seq AS place FROM naive.messages AS m JOIN naive.members AS r USING (conversation_id)
                     WHERE r.user_id = $1 AND m.seq > $2 ORDER BY m.seq"""
        else:
            sql = """SELECT m.*, i.seq AS place FROM naive.inbox AS i JOIN naive.messages AS m ON m.id = i.message_id
                     WHERE i.user_id = $1 AND i.seq > $2 ORDER BY i.seq"""
        return [(row["place"], frame(row["place"], row)) for row in await self.pool.fetch(sql, user, last)]

    async def head(self, user: str) -> int:
        if SEQUENCE_IDS in self.naiveties:
            return await self.pool.fetchval("SELECT coalesce(max(seq), 0) FROM naive.messages") or 0
        return await self.pool.fetchval("SELECT head FROM naive.heads WHERE user_id = $1", user) or 0

    async def stream(self, user: str, cursor: str | None) -> AsyncIterator[bytes]:
        async with self.redis.pubsub() as pubsub:
            if QUERY_THEN_SUBSCRIBE not in self.naiveties:
                await subscribe(pubsub, user)
            last = int(cursor.rpartition(".")[2]) if cursor else await self.head(user)
            rows = await self.missed(user, last)
            yield b"retry: 1000\n\nid: n.%d\n\nevent: connected\ndata: {}\n\n" % last
            is_subscribed = QUERY_THEN_SUBSCRIBE not in self.naiveties
            while True:
                for seq, data in rows:
                    if seq > last:
                        last = seq
                        yield data
                if not is_subscribed:
                    await subscribe(pubsub, user)
                    is_subscribed = True
                rows = await self.next_rows(pubsub, user, last)

    async def next_rows(self, pubsub: Any, user: str, last: int) -> list[tuple[int, bytes]]:
        """What comes next: from Redis, or, if the server mends gaps, from PostgreSQL."""
        item = None
        with suppress(redis.RedisError, OSError):  # redis-py connects and subscribes anew by itself
            item = await pubsub.get_message(ignore_subscribe_messages=True, timeout=TICK_SECONDS)
        if item is None:
            return [] if NO_REPAIR in self.naiveties else await self.missed(user, last)
        data = item["data"]
        seq = int(data[: data.index(b"\n")].rpartition(b".")[2])
        can_see_gaps = SEQUENCE_IDS not in self.naiveties and NO_REPAIR not in self.naiveties
        if seq > last + 1 and can_see_gaps:
            return await self.missed(user, last)
        return [(seq, data)]


async def subscribe(pubsub: Any, user: str) -> None:
    """Subscribe, and wait for the acknowledgement: `subscribe()` alone returns when the command is sent."""
    await pubsub.subscribe(f"user:{user}")
    await pubsub.get_message(timeout=1)


def frame(seq: int, row: asyncpg.Record) -> bytes:
    return b"id: n.%d\nevent: new_message\ndata: %s\n\n" % (seq, orjson.dumps(message_of(row)))


def message_of(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "conversation_id": str(row["conversation_id"]),
        "seq": row["seq"],
        "rev": row["seq"],
        "sender": {"id": row["sender_id"]},
        "client_message_id": row["key"],
        "content": row["content"],
        "reactions": [],
        "edited_at": None,
        "deleted_at": None,
    }


def direct_id(one: str, other: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, " ".join(sorted((one, other))))


def user_of(authorization: Annotated[str, Header()]) -> str:
    token = authorization.removeprefix("Bearer ")
    return jwt.decode(token, options={"verify_signature": False})["sub"]


User = Annotated[str, Depends(user_of)]


def build(server: NaiveServer) -> FastAPI:
    app = FastAPI(lifespan=server.opened)

    @app.get("/api/v1/users/me")
    async def me(user: User) -> Response:
        await server.pool.execute("INSERT INTO naive.heads VALUES ($1) ON CONFLICT DO NOTHING", user)
        return answer(200, {"id": user})

    @app.post("/api/v1/conversations")
    async def create(request: Request, user: User) -> Response:
        body = orjson.loads(await request.body())
        members = sorted({user, *body["member_ids"]})
        is_direct = body["kind"] == "direct"
        new_id = direct_id(*members) if is_direct else uuid.UUID(body["client_conversation_id"])
        async with server.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO naive.conversations VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                new_id, str(new_id), body["kind"],
            )  # fmt: skip
            await connection.executemany(
                "INSERT INTO naive.members VALUES ($1, $2) ON CONFLICT DO NOTHING",
                [(new_id, member) for member in members],
            )
        return answer(201, {"id": str(new_id)})

    @app.post("/api/v1/messages/send")
    async def send(request: Request, user: User) -> Response:
        try:
            return answer(*await server.send(user, orjson.loads(await request.body())))
        except (TimeoutError, asyncpg.InterfaceError):
            return answer(503, {})

    @app.get("/api/v1/conversations/{conversation_id}/messages")
    async def messages(conversation_id: uuid.UUID, after: int, limit: int) -> Response:
        rows = await server.pool.fetch(
            "SELECT * FROM naive.messages WHERE conversation_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            conversation_id, after, limit,
        )  # fmt: skip
        return answer(200, {"items": [message_of(row) for row in rows], "has_more": len(rows) == limit})

    @app.get("/api/v1/messages/stream")
    async def stream(user: User, last_event_id: Annotated[str | None, Header()] = None) -> Response:
        return StreamingResponse(server.stream(user, last_event_id), media_type="text/event-stream")

    return app


def answer(status: int, body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def main() -> None:
    naiveties = frozenset(os.environ["NAIVETIES"].split())
    assert naiveties <= set(NAIVETIES), naiveties
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"PORT {listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(build(NaiveServer(naiveties)), access_log=False, log_level="warning")
    config.timeout_graceful_shutdown = 1
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
