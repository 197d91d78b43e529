"""A TCP proxy that does to a connection what networks do."""

from __future__ import annotations

import asyncio
from typing import Self


class TcpProxy:
    """Listens on a port of its own and forwards to `target_port` on loopback."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.cuts = 0
        self.is_cut = False
        self._trigger: bytes | None = None
        self._cuts_all = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Reset every connection, and every new one as soon as it is there, until `mend`."""
        self.is_cut = True
        await asyncio.gather(*self._end_connections(), return_exceptions=True)

    def hold(self) -> None:
        """Let nothing through in either direction and end no connection, until `mend`: a laptop out of range."""
        self._flows.clear()

    def mend(self) -> None:
        """Let connections through again."""
        self.is_cut = False
        self._flows.set()

    def cut_before_reply_to(self, request: bytes, *, and_all_others: bool = False) -> None:
        """Once a request that holds these bytes has been forwarded, swallow its reply and cut; once.

        With `and_all_others` no other connection brings anything from then on, either, until `mend`.
        """
        self._trigger = request
        self._cuts_all = and_all_others

    def _end_connections(self) -> list[asyncio.Task[None]]:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            if not self.is_cut:
                await self._forward(reader, writer)
        except (ConnectionRefusedError, asyncio.CancelledError):
            pass  # the server is down, or the wire is cut: the reset says so
        finally:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        doomed = asyncio.Event()

        async def up() -> None:
            while data := await reader.read(65536):
                if self._trigger is not None and self._trigger in data:
                    self._trigger = None
                    self.is_cut = self._cuts_all
                    doomed.set()
                await self._flows.wait()
                upstream_writer.write(data)
                await upstream_writer.drain()

        async def down() -> None:
            while data := await upstream_reader.read(65536):
                if doomed.is_set():
                    self.cuts += 1
                    if self._cuts_all:
                        self._end_connections()
                    return
                await self._flows.wait()
                if not self.is_cut:
                    writer.write(data)
                    await writer.drain()

        pumps = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            upstream_writer.transport.abort()
