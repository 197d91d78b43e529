"""A process without memory says nothing wrong: what it could not read is not the client's fault."""

from __future__ import annotations

import asyncio

from app.exits import Exit
from app.server import GaplessProtocol
from tests.hardening.in_process import InProcessServer


async def test_a_request_that_could_not_be_read_is_not_answered_with_400(monkeypatch):
    """Protocol 2.5: a client that is told 400 would not repeat its send; one that hears nothing does.

    The process ends, which here would be the one of this test.
    """
    ends: list[int] = []
    monkeypatch.setattr("os._exit", ends.append)
    server = InProcessServer(["bob"])
    wrong = await server.client("bob", cut_request=True)
    wrong.write(b" HTTP/9.9\r\n\r\n")
    assert (await wrong.rest(5)).startswith(b"HTTP/1.1 400 ")

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(GaplessProtocol, "on_header", fail)
    right = await server.client("bob")
    assert await right.rest(5) == b""
    assert ends == [Exit.FAILED]
    for raw in (wrong, right):
        raw.writer.close()
    async with asyncio.timeout(5):
        while server.protocols() > 0:
            await asyncio.sleep(0.01)
