"""The server or Redis goes away in the middle of a conversation, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from app.embedded import ValkeyProcess, start_valkey
from tests.support.browser import BROKEN_WIRE, UNAVAILABLE, Chat
from tests.support.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.mark.parametrize("end", ["killed", "terminated"])
async def test_a_conversation_goes_on_after_the_server_was_restarted(
    ada_and_bob: tuple[Chat, Chat], demo_server: Server, end: str
):
    ada, bob = ada_and_bob
    for chat in (ada, bob):
        chat.watch.expects(BROKEN_WIRE, UNAVAILABLE)
    await bob.write("one")
    await expect(ada.texts).to_have_text(["hello Bob", "one"])

    if end == "killed":
        demo_server.kill()
    else:
        assert await demo_server.terminate() == 0
    for chat in (ada, bob):
        await expect(chat.state).to_have_text("Reconnecting")
    await ada.write("two, into the dark")
    await expect(ada.state).to_have_text("Reconnecting · 1 waiting")
    await expect(ada.ticks("two, into the dark")).to_have_text("Sending")

    await demo_server.start()
    await asyncio.gather(ada.live(), bob.live())
    await expect(bob.texts).to_have_text(["hello Bob", "one", "two, into the dark"])
    await bob.write("three")
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(["hello Bob", "one", "two, into the dark", "three"])


@pytest.fixture
async def revived(tmp_path: Path) -> AsyncIterator[list[ValkeyProcess]]:
    """What is put in here is stopped at the end."""
    started: list[ValkeyProcess] = []
    try:
        yield started
    finally:
        for each in started:
            each.stop()


async def test_a_conversation_goes_on_without_redis_and_with_another_one(
    ada_and_bob: tuple[Chat, Chat],
    demo_server: Server,
    valkey: ValkeyProcess,
    revived: list[ValkeyProcess],
    tmp_path: Path,
):
    """Nothing tells the streams of a message now but the look at PostgreSQL; the pages need not know."""
    ada, bob = ada_and_bob
    valkey.kill()
    told = ["hello Bob"]
    for text in ("one", "two"):
        await bob.write(text)
        told.append(text)
        for chat in (ada, bob):
            await expect(chat.texts).to_have_text(told)
    await until_redis_is("down", demo_server)
    await ada.write("three")
    told.append("three")
    await expect(bob.texts).to_have_text(told)

    revived.append(await asyncio.to_thread(start_valkey, tmp_path / "again", valkey.port))
    await until_redis_is("up", demo_server)
    await ada.write("four")
    told.append("four")
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(told)
        await chat.live()


async def until_redis_is(state: str, server: Server) -> None:
    async with asyncio.timeout(20):
        while (await server.call("GET", "/ready"))[1].get("redis") != state:
            await asyncio.sleep(0.05)
