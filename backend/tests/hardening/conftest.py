"""Raw connections that are closed at the end of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.hardening.raw import Raw
from tests.support.servers import Server

Connect = Callable[..., Awaitable[Raw]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Open bare connections: `connect(server, first_bytes)`."""
    opened: list[Raw] = []

    async def one(server: Server, first: bytes = b"") -> Raw:
        raw = await Raw.to(server, first)
        opened.append(raw)
        return raw

    try:
        yield one
    finally:
        for raw in opened:
            raw.reset()
