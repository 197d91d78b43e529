"""The stream on an ASGI server that offers nothing of its own: plain `send`."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.servers import new_user
from tests.support.streams import StreamClient

pytestmark = pytest.mark.e2e


async def test_the_stream_works_without_the_wire_extension(start_server, open_stream):
    """Protocol 4.1, 5.1: connected, live, cut, replayed, live again."""
    server = await start_server(plain_protocol=1)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    await server.send(ada, bob, "one")
    await stream.messages(1)
    stream.cut()
    for text in ("two", "three"):
        await server.send(ada, bob, text)
    await stream.connected()
    await server.send(ada, bob, "four")
    assert [m["content"] for m in await stream.messages(3)] == ["two", "three", "four"]
    assert stream.seqs == [1, 2, 3, 4]
    ended = asyncio.create_task(stream.until_end())
    assert await server.terminate() == 0
    assert (await ended)[-1].retry is not None


async def test_a_client_that_is_slow_for_a_while_catches_up_there_too(start_server):
    """Protocol 7.3."""
    server = await start_server(plain_protocol=1)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = StreamClient(server, bob)
    await stream.open(receive_buffer=4096)
    await stream.until("connected")
    stream.stop_reading()
    for start in range(0, 200, 20):
        await asyncio.gather(*(server.send(ada, bob, f"{start + n} " + "x" * 4000) for n in range(20)))
    stream.go_on_reading()
    assert [m["seq"] for m in await stream.messages(200, 15)] == list(range(1, 201))
    stream.cut()
