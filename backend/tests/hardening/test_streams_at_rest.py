"""What is left of a request once its stream is open: nothing that 10,000 of them would pay for."""

from __future__ import annotations

import asyncio
import gc
import socket

import uvloop

from app import server as gapless
from app.server import GaplessProtocol
from tests.hardening.in_process import InProcessServer
from tests.hardening.raw import Raw

STREAMS = 50


async def _open(server: InProcessServer, user: str) -> Raw:
    client = await server.client(user)
    await client.until(b"event: connected")
    return client


def _protocols() -> list[GaplessProtocol]:
    return [thing for thing in gc.get_objects() if isinstance(thing, GaplessProtocol)]


def test_a_stream_at_rest_has_no_task_no_request_and_no_parser_and_still_lives():
    """Protocol 4.1, 7.2: it is fed, its end is said, and its client's going is noticed."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_streams_at_rest())


async def _streams_at_rest() -> None:
    server = InProcessServer(["ada", "bob"])
    waiting = await server.client("ada", cut_request=True)  # not yet a stream: it has all of that
    clients: list[Raw] = []
    try:
        await asyncio.sleep(0)
        tasks = len(asyncio.all_tasks())
        clients += [await _open(server, "bob") for _ in range(STREAMS)]
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > tasks:
                await asyncio.sleep(0)
        assert server.protocols() == STREAMS + 1
        assert len(_protocols()) == 1

        server.send("bob")
        for client in clients:
            await client.until(b"event: new_message")
        clients.pop().writer.transport.abort()
        await _until_connected(server, STREAMS)
        assert len(list(server.registry.all())) == STREAMS - 1

        for stream in server.registry.all():
            stream.end("drain", retry_ms=1000)
        for client in clients:
            assert (await client.rest(5)).endswith(b"\r\nretry: 1000\n\n\r\n0\r\n\r\n")
    finally:  # uvloop waits for ever for what is open still, where warnings are errors
        for client in (waiting, *clients):
            client.writer.close()
        await _until_connected(server, 0)


async def _until_connected(server: InProcessServer, connections: int) -> None:
    async with asyncio.timeout(5):
        while server.protocols() > connections:
            await asyncio.sleep(0)


def test_opening_and_closing_streams_leaves_nothing_to_the_garbage_collector():
    """A storm would have to collect it: half of the time of 10,000 reconnects went there."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_no_garbage())


async def _no_garbage() -> None:
    server = InProcessServer(["bob"])
    (await _open(server, "bob")).writer.close()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for client in [await _open(server, "bob") for _ in range(STREAMS)]:
            client.writer.close()
        await _until_connected(server, 0)
        circle: list[object] = []
        circle.append(circle)
        del circle
        gc.collect()
        found = [type(thing).__name__ for thing in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert "list" in found  # it would have been seen
    assert not {"GaplessProtocol", "TransportWire", "Stream", "RequestResponseCycle", "coroutine", "Task"} & set(found)


def test_what_the_listener_accepts_gives_up_a_client_that_has_vanished():
    """RFC 5482: the kernel counts, so that nobody else has to."""
    with gapless.listen("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname(), 5), listener.accept()[0] as accepted:
            given = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert given == gapless.USER_TIMEOUT_MS
