"""A process that may open few files keeps some for those it serves."""

from __future__ import annotations

import asyncio
import resource

import pytest

from app.server import RESERVED_FILES
from tests.hardening.raw import request
from tests.support.processes import limited
from tests.support.servers import new_user
from tests.support.streams import StreamClient

pytestmark = pytest.mark.e2e

ROOM = 20


async def test_a_stream_too_many_is_told_to_come_back_and_requests_are_served(start_server, connect):
    """Protocol 4.7: 200 and `retry:`, because EventSource gives up for ever at a refusal."""
    server = await start_server(max_streams_per_user=100)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    streams = [StreamClient(server, bob) for _ in range(2 * ROOM)]
    try:
        with limited(server.pid, resource.RLIMIT_NOFILE, RESERVED_FILES + ROOM):
            for stream in streams:
                await stream.open()
                assert stream.status == 200
                await stream.next()
            turned_away = [stream for stream in streams if stream.retry_ms >= 10_000]
            assert ROOM <= len(turned_away) <= ROOM + 5
            for stream in turned_away:
                with pytest.raises(EOFError):
                    await stream.next()
            raw = await connect(server, request("GET", "/health"))
            assert (await raw.answer()).status == 200
            await server.send(ada, bob, "to those who are in")
            for stream in streams:
                if stream not in turned_away:
                    await stream.until("new_message")
            for stream in streams[:5]:
                stream.cut()
            await until_let_in(turned_away[0])
    finally:
        for stream in streams:
            stream.cut()


async def until_let_in(stream: StreamClient) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await stream.connected()
            except EOFError:
                await asyncio.sleep(0.05)
            else:
                return
