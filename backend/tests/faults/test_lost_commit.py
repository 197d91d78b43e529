"""The connection to PostgreSQL is lost during COMMIT: the answer is unknown, the message must not be."""

from __future__ import annotations

import asyncio
import re
import time
import uuid

import pytest

from tests.support.proxy import TcpProxy
from tests.support.servers import new_user

pytestmark = pytest.mark.faults


async def test_an_answer_lost_after_the_commit_is_found_by_the_same_key(
    start_server, open_stream, database_url, connection
):
    """Protocol 2.5, 5.4: the server asks again with the same keys; one row, one delivery, at once."""
    port = int(re.findall(r":(\d+)/", database_url)[0])
    async with TcpProxy(port) as proxy:
        through = re.sub(r":\d+/", f":{proxy.port}/", database_url)
        server = await start_server(database_url=through)
        ada, bob = new_user("ada"), new_user("bob")
        await server.know(ada, bob)
        await server.send(ada, bob, "before")
        stream = await open_stream(server, bob)

        # The next answer that comes back from a writer is swallowed, and the connection is cut.
        proxy.cut_before_reply_to(b"the lost one")
        body = {"recipient_id": bob, "content": "the lost one", "client_message_id": str(uuid.uuid4())}
        started = time.monotonic()
        status, message = await server.call("POST", "/messages/send", user=ada, json=body)
        assert proxy.cuts == 1
        assert status == 201
        assert [m["id"] for m in await stream.messages(1)] == [message["id"]]
        assert time.monotonic() - started < 3
        assert await connection.fetchval("SELECT count(*) FROM messages WHERE content = 'the lost one'") == 1
        status, again = await server.call("POST", "/messages/send", user=ada, json=body)
        assert (status, again["id"]) == (200, message["id"])
        await asyncio.gather(*(server.send(ada, bob, f"{n}") for n in range(3)))
        await stream.messages(3)
        assert stream.seqs == [2, 3, 4, 5]
