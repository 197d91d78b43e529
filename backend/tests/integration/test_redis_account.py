"""The Redis account of docs/operations.md, as it stands there."""

import json
import re
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.redis import redis_command
from tests.support.servers import JWT_SECRET, new_user

OPERATIONS = Path(__file__).parents[3] / "docs/operations.md"


@pytest.mark.timeout(60)
async def test_the_account_of_the_manual_is_enough_and_is_refused_nothing(
    valkey, start_server, open_stream, database_url, tmp_path
):
    pasted = re.findall(r"^ACL SETUSER .*$", OPERATIONS.read_text(), re.MULTILINE)
    assert len(pasted) == 1
    assert await redis_command(valkey.port, pasted[0]) == b"OK"
    redis_url = f"redis://gapless:PASSWORD@127.0.0.1:{valkey.port}/0"

    server = await start_server(redis_url=redis_url, heartbeat_seconds=30)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)
    message = await server.send(ada, bob)
    # Through Redis: the next check of the heads is half a minute away.
    assert (await stream.until("new_message", timeout_seconds=5)).json == message

    done = await run(
        tmp_path, "doctor", "--json", DATABASE_URL=database_url, REDIS_URL=redis_url, AUTH_JWT_SECRET=JWT_SECRET
    )
    outcomes = {check["name"]: check["outcome"] for check in json.loads(done.out)}
    assert (outcomes["redis"], outcomes["pub/sub"]) == ("ok", "ok")
    assert await redis_command(valkey.port, "ACL LOG") == []
    await redis_command(valkey.port, "AUTH gapless another")
    assert len(await redis_command(valkey.port, "ACL LOG")) == 1, "it would show what is refused"
    assert b"no permissions" in await redis_command(valkey.port, "ACL DRYRUN gapless PUBLISH other x")
    assert b"no permissions" in await redis_command(valkey.port, "ACL DRYRUN gapless GET user:x")
