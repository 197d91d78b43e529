"""The ways to a Redis that REDIS_URL can name, and what becomes of one that leads nowhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Connection
from structlog.testing import capture_logs

from app.commands.checks import check_redis
from app.embedded import start_valkey
from app.main import _kept_running
from app.observability import stats
from app.services.messaging import redis_link
from app.services.messaging.publisher import Publisher, RedisOutlet
from app.services.messaging.redis_pubsub import PubSub
from app.settings import AppEnv, Settings
from tests.integration.test_pubsub import until
from tests.support.ports import free_port
from tests.support.servers import new_user

UNUSABLE = "redis://127.0.0.1/0?no_such_option=1"  # the library raises TypeError, as of a defect of ours


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
async def test_a_server_that_is_not_there_is_a_failed_attempt(scheme: str, tmp_path: Path):
    """Protocol 8.1: for each scheme that REDIS_URL may have, and not a defect that ends the work."""
    url = f"unix://{tmp_path}/none.sock" if scheme == "unix" else f"{scheme}://127.0.0.1:{free_port()}/0"
    with pytest.raises(redis_link.LINK_ERRORS):
        await redis_link.open_link(url, on_reply=print, on_lost=print, name="nobody")


async def test_one_that_is_cut_in_the_handshake_is_a_failed_attempt(monkeypatch):
    """Protocol 8.1: seen under random faults, and logged as a defect of ours."""

    async def is_cut(_self) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    monkeypatch.setattr(Connection, "connect", is_cut)
    with pytest.raises(redis_link.LINK_ERRORS):
        await redis_link.open_link(f"redis://127.0.0.1:{free_port()}/0", on_reply=print, on_lost=print, name="nobody")


async def test_a_message_is_delivered_over_a_unix_socket(start_server, open_stream, tmp_path: Path):
    """Protocol 1.2: live, long before a head check would bring it."""
    path = tmp_path / "redis.sock"
    valkey = start_valkey(tmp_path / "unix", extra_args=("--unixsocket", str(path)))
    try:
        server = await start_server(redis_url=f"unix://{path}?db=0", heartbeat_seconds=30)
        ada, bob = new_user("ada"), new_user("bob")
        await server.know(ada, bob)
        stream = await open_stream(server, bob)
        await server.send(ada, bob, "hello")
        assert [message["content"] for message in await stream.messages(1, 3)] == ["hello"]
        assert (await server.call("GET", "/ready"))[1]["status"] == "ready"
    finally:
        valkey.stop()


async def test_an_address_that_cannot_be_used_is_a_redis_that_is_down():
    """Protocol 8.1: it is told once, the work goes on, and old frames are given up."""
    outlet = RedisOutlet(UNUSABLE)
    publisher = Publisher(outlet)
    pubsub = PubSub(UNUSABLE, publisher)
    lost = stats.publishes_lost
    with capture_logs() as logged:
        async with _kept_running(outlet.run), _kept_running(pubsub.run):
            publisher.ephemeral("typing_status", {}, user_ids=["bob"])
            await until(lambda: stats.publishes_lost == lost + 1)
            assert await outlet.drained(0)
    assert not pubsub.is_up
    told = [(line["event"], line.get("reason") or line["error"]) for line in logged]
    assert told == [("redis_down", "TypeError"), ("redis_link_failed", "TypeError")]


async def test_doctor_says_of_an_address_that_it_cannot_be_used(tmp_path: Path):
    def settings(url: str) -> Settings:
        return Settings(app_env=AppEnv.DEVELOPMENT, redis_url=url)

    for url in (UNUSABLE, "http://127.0.0.1/0", f"unix://{tmp_path}/none.sock"):
        [check] = await check_redis(settings(url))
        assert (check.name, check.outcome) == ("redis", "fail")
        assert "REDIS_URL" in check.sentence


async def test_doctor_says_when_the_servers_own_connection_cannot_be_made(valkey, monkeypatch):
    async def fail(*_: object, **__: object) -> None:
        await asyncio.sleep(0)
        raise TypeError("unexpected keyword")

    monkeypatch.setattr(redis_link, "open_link", fail)
    checks = await check_redis(Settings(app_env=AppEnv.DEVELOPMENT, redis_url=valkey.url))
    assert [(check.name, check.outcome) for check in checks] == [("redis", "ok"), ("pub/sub", "fail")]
    assert "TypeError" in checks[1].sentence
