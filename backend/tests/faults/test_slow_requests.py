"""Requests that ask PostgreSQL several times: each answer in time, the sum of them not."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import pytest

from tests.faults.kit.link import Link
from tests.support.servers import Server, new_user

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SLOW_SECONDS = 1.3  # each way: who is it, and what is there
ENOUGH_SECONDS = 6  # for an answer that is due after 5


@pytest.fixture
async def link(database_url) -> AsyncIterator[Link]:
    async with Link(int(re.findall(r":(\d+)/", database_url)[0])) as link:
        yield link


@pytest.fixture
async def server(start_server, database_url, link) -> Server:
    """A process that PostgreSQL answers through `link`, over connections that are there."""
    server = await start_server(database_url=re.sub(r":\d+/", f":{link.port}/", database_url), heartbeat_seconds=1)
    user = new_user("user")
    await server.know(user)
    await asyncio.gather(*(server.call("GET", "/conversations", user=user) for _ in range(10)))
    return server


async def test_the_sum_of_slow_answers_is_no_late_answer(server, link, meter):
    """Protocol 8.2: 503 within 5 s, also where no single question has taken too long."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    message = await server.send(ada, bob)
    read = ("GET", f"/conversations/{message['conversation_id']}/messages")
    edit = ("PATCH", f"/messages/{message['id']}")
    for (method, path), body, each_way in ((read, None, SLOW_SECONDS), (edit, {"content": "edited"}, 0.8)):
        link.delay_seconds = each_way
        started = time.monotonic()
        status, problem = await server.call(method, path, user=ada, json=body)
        assert time.monotonic() - started < ENOUGH_SECONDS + meter.longest()
        assert (status, problem["code"]) == (503, "unavailable")
        link.heal()
        await asyncio.sleep(2 * each_way)
    status, _ = await server.call(*read, user=ada)
    assert status == 200
