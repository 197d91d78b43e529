"""Commands to a Valkey, as an operator would send them."""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis


async def redis_command(port: int, command: str) -> Any:
    """Send one command, and give its reply."""
    connection, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(command.encode() + b"\r\n")
        reader = hiredis.Reader()
        async with asyncio.timeout(5):
            while (reply := reader.gets()) is False:
                reader.feed(await connection.read(65536))
        return reply
    finally:
        writer.close()
