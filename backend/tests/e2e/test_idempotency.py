"""One key, one message: however often, from wherever."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.support.servers import new_user

pytestmark = pytest.mark.e2e


async def test_one_key_fifty_times_over_two_processes_is_one_message(start_server, open_stream, connection):
    """Protocol 2.4: one row, one seq, one delivery, fifty equal answers, one of them 201."""
    one, other = await asyncio.gather(start_server(), start_server())
    ada, bob = new_user("ada"), new_user("bob")
    await one.know(ada, bob)
    stream = await open_stream(other, bob)
    body = {"recipient_id": bob, "content": "once", "client_message_id": str(uuid.uuid4())}
    answers = await asyncio.gather(
        *(server.call("POST", "/messages/send", user=ada, json=body) for server in (one, other) for _ in range(25))
    )
    assert sorted(status for status, _ in answers) == [200] * 49 + [201]
    assert len({str(message) for _, message in answers}) == 1
    assert await connection.fetchval("SELECT count(*) FROM messages") == 1
    assert await connection.fetch("SELECT head FROM inbox_heads ORDER BY user_id") == [(1,), (1,)]
    assert [m["content"] for m in await stream.messages(1)] == ["once"]
    await one.send(ada, bob, "after")
    assert [m["content"] for m in await stream.messages(1)] == ["after"]  # not "once" again


async def test_a_repeat_answers_with_the_message_as_it_now_is(server):
    """Protocol 2.4: also after an edit."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    key = str(uuid.uuid4())
    message = await server.send(ada, bob, "first", client_message_id=key)
    await server.call("PATCH", f"/messages/{message['id']}", user=ada, json={"content": "edited"})
    again = await server.send(ada, bob, "first", client_message_id=key)
    assert again["id"] == message["id"]
    assert again["content"] == "edited"


async def test_a_key_used_for_another_request_is_a_conflict(server):
    """Protocol 2.4: the first request stays as it was."""
    ada, bob, cleo = new_user("ada"), new_user("bob"), new_user("cleo")
    await server.know(ada, bob, cleo)
    key = str(uuid.uuid4())
    await server.send(ada, bob, "first", client_message_id=key)
    for body in ({"recipient_id": bob, "content": "other"}, {"recipient_id": cleo, "content": "first"}):
        status, problem = await server.call("POST", "/messages/send", user=ada, json={**body, "client_message_id": key})
        assert (status, problem["code"]) == (409, "idempotency_conflict")
    # A key belongs to its sender: another's use of the same one is another message.
    assert (await server.send(cleo, bob, "mine", client_message_id=key))["content"] == "mine"
