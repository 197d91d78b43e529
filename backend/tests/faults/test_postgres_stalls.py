"""PostgreSQL neither answers nor closes: a network that swallows packets, a host that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from typing import Self

import pytest

from tests.hardening.raw import Raw, request
from tests.support.servers import new_user

pytestmark = pytest.mark.faults


class StallingProxy:
    """Forwards to a port on loopback, or holds every byte, in both directions, until it is let go on."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.flows = asyncio.Event()
        self.flows.set()
        self._target_port = target_port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self.flows.wait()
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            try:
                await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
            finally:
                up_writer.transport.abort()
        finally:
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self.flows.wait()
                writer.write(data)
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@pytest.mark.slow
async def test_a_postgresql_that_hangs_costs_answers_and_nothing_else(
    start_server, open_stream, database_url, connection, meter
):
    """Protocol 2.5, 5.4, 7.4, 8.2: 503 within 5 s, streams beat, and afterwards all is there once and in order."""
    async with StallingProxy(int(re.findall(r":(\d+)/", database_url)[0])) as proxy:
        through = re.sub(r":\d+/", f":{proxy.port}/", database_url)
        server = await start_server(database_url=through, heartbeat_seconds=1)
        other = await start_server(heartbeat_seconds=1)  # its PostgreSQL answers
        ada, bob = new_user("ada"), new_user("bob")
        await server.know(ada, bob)
        await asyncio.gather(*(server.send(ada, bob, f"before {n}") for n in range(20)))
        stream = await open_stream(server, bob)
        for _ in range(2):
            proxy.flows.clear()

            async def refused(number: int) -> float:
                started = time.monotonic()
                body = {"recipient_id": bob, "content": f"during {number}"}
                status, _ = await server.call("POST", "/messages/send", user=ada, json=body)
                assert status == 503
                return time.monotonic() - started

            async def asked() -> int:
                return (await server.call("GET", "/conversations", user=ada))[0]

            waiting = [asyncio.create_task(refused(number)) for number in range(30)]
            reading = [asyncio.create_task(asked()) for _ in range(30)]
            await asyncio.sleep(1)
            await other.send(ada, bob, "from elsewhere")
            assert max(await asyncio.gather(*waiting)) < 6 + meter.longest()
            assert set(await asyncio.gather(*reading)) == {503}
            await stream.until("heartbeat", 3)
            proxy.flows.set()

            async with asyncio.timeout(6):  # no connection is kept that a late answer could confuse
                while True:
                    body = {"recipient_id": bob, "content": "after"}
                    if (await server.call("POST", "/messages/send", user=ada, json=body))[0] == 201:
                        break
            async with asyncio.timeout(6):
                while set(await asyncio.gather(*(asked() for _ in range(30)))) != {200}:
                    pass
        head = await connection.fetchval("SELECT head FROM inbox_heads WHERE user_id = $1", bob)
        async with asyncio.timeout(10):
            while not stream.seqs or stream.seqs[-1] < head:
                await stream.until("new_message", 10)
        assert stream.seqs == list(range(21, head + 1))
        committed = await connection.fetch("SELECT content FROM messages ORDER BY seq OFFSET 20")
        assert stream.contents == [row["content"] for row in committed]


@pytest.mark.slow
async def test_a_process_that_is_to_end_does_so_in_time_although_postgresql_hangs(start_server, database_url):
    """Protocol 7.1: a body that trickles in, a send that is not answered, connections that do not close."""
    async with StallingProxy(int(re.findall(r":(\d+)/", database_url)[0])) as proxy:
        server = await start_server(database_url=re.sub(r":\d+/", f":{proxy.port}/", database_url))
        assert server.process is not None
        ada, bob = new_user("ada"), new_user("bob")
        await server.know(ada, bob)
        # Both writers, and several connections of the pool.
        await asyncio.gather(*(server.send(ada, bob) for _ in range(200)))
        await asyncio.gather(*(server.call("GET", "/conversations", user=ada) for _ in range(20)))
        body = b'{"recipient_id":"%b","content":"slowly"}' % bob.encode()
        raw = await Raw.to(
            server,
            request(
                "POST",
                "/api/v1/messages/send",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
                user=ada,
            ),
        )
        await asyncio.sleep(0.2)
        proxy.flows.clear()
        started = time.monotonic()
        server.signal(signal.SIGTERM)
        ended = asyncio.create_task(asyncio.to_thread(server.process.wait, 30))
        for byte in body[:-1]:
            raw.write(b"%c" % byte)
            await asyncio.sleep(9.5 / len(body))  # in the longest time that a body may take
        raw.write(body[-1:])
        assert await ended == 0, server.log_tail()
        assert time.monotonic() - started < 15
        raw.reset()
