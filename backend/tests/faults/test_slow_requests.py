"""Requests that ask PostgreSQL several times: each answer in time, the sum of them not."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from tests.faults.kit.link import Link
from tests.support.servers import new_user

pytestmark = [pytest.mark.faults, pytest.mark.slow]


async def test_the_sum_of_slow_answers_is_no_late_answer(start_server, database_url):
    """Protocol 8.2: 503 within 5 s, also where no single question has taken too long."""
    async with Link(int(re.findall(r":(\d+)/", database_url)[0])) as link:
        server = await start_server(database_url=re.sub(r":\d+/", f":{link.port}/", database_url))
        ada, bob = new_user("ada"), new_user("bob")
        await server.know(ada, bob)
        message = await server.send(ada, bob)
        await asyncio.gather(*(server.call("GET", "/conversations", user=ada) for _ in range(10)))
        link.delay_seconds = 1.3  # each way: who is it, and what is there
        started = time.monotonic()
        status, problem = await server.call("GET", f"/conversations/{message['conversation_id']}/messages", user=ada)
        assert time.monotonic() - started < 6
        assert (status, problem["code"]) == (503, "unavailable")
        link.heal()
        await asyncio.sleep(1.5)
        status, _ = await server.call("GET", f"/conversations/{message['conversation_id']}/messages", user=ada)
        assert status == 200
