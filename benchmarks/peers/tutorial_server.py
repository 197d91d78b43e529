"""The server that tutorials write: a generator and a Redis connection per client (sse-starlette).

It promises nothing: what is published while a client is away is lost. It is here for its speed alone.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import redis.asyncio as redis
from fastapi import FastAPI
from sse_starlette.sse import EventSourceResponse

app = FastAPI()


@app.get("/stream/{user_id}")
async def stream(user_id: str) -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, str]]:
        client = redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
        pubsub = client.pubsub()
        await pubsub.subscribe(f"user:{user_id}")
        yield {"event": "connected", "data": "{}"}
        number = 0
        try:
            async for message in pubsub.listen():
                if message["type"] == "message":
                    number += 1
                    yield {"event": "new_message", "id": str(number), "data": message["data"]}
        finally:
            await pubsub.aclose()
            await client.aclose()

    return EventSourceResponse(events())
