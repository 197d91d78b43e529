"""The wire between the browser and the server is cut by a TCP proxy, and mended."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from tests.plugins.browser import OpenChat
from tests.support.browser import BROKEN_WIRE, Chat, acquaint
from tests.support.proxy import TcpProxy
from tests.support.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.faults, pytest.mark.timeout(120)]

WATCHDOG_SECONDS = 25  # protocol 7.4: two heartbeats and a half
LOST = "The connection is lost; trying again. Messages wait until it is back."


async def test_what_was_written_during_a_cut_is_there_afterwards_once_and_in_order(
    ada_behind_proxy: tuple[Chat, Chat], proxy: TcpProxy
):
    ada, bob = ada_behind_proxy
    before, meanwhile = ["hello Bob", "before"], ["one", "two", "three"]
    await bob.write("before")
    await expect(ada.texts).to_have_text(before)

    await proxy.cut()
    await expect(ada.state).to_have_text("Reconnecting")
    await expect(ada.notice).to_contain_text(LOST)
    for number, text in enumerate(meanwhile, 1):
        await bob.write(text)
        await expect(bob.ticks(text)).to_have_text("Sent")
        await expect(bob.texts).to_have_count(len(before) + number)
    assert await ada.texts.all_text_contents() == before, "the cut lets messages through: this test tests nothing"

    proxy.mend()
    await ada.live()
    await expect(ada.notice).to_have_text("Back again. 3 messages came meanwhile.")
    await expect(ada.texts).to_have_text([*before, *meanwhile])
    await expect(bob.ticks("three")).to_have_text("Read")

    # Whatever came twice would have come before this one.
    await bob.write("after")
    await expect(ada.texts).to_have_text([*before, *meanwhile, "after"])
    await expect(bob.texts).to_have_text([*before, *meanwhile, "after"])


async def test_what_was_changed_during_a_cut_shows_afterwards(ada_behind_proxy: tuple[Chat, Chat], proxy: TcpProxy):
    ada, bob = ada_behind_proxy
    for text in ("to be edited", "to be deleted"):
        await bob.write(text)
        await expect(ada.ticks("hello Bob")).to_have_text("Read")
    await expect(ada.texts).to_have_text(["hello Bob", "to be edited", "to be deleted"])

    await proxy.cut()
    await expect(ada.state).to_have_text("Reconnecting")
    await bob.tool("to be edited", "Edit")
    await bob.write("edited by now")
    await expect(bob.message("edited by now")).to_have_count(1)
    await bob.tool("to be deleted", "Delete")
    await bob.page.get_by_role("button", name="Delete for everyone").click()
    await bob.tool("hello Bob", "React")
    await bob.page.get_by_role("button", name="thumbs up").first.click()
    await expect(bob.message("hello Bob").locator(".reaction")).to_have_text("👍1")
    await expect(ada.texts).to_have_text(["hello Bob", "to be edited", "to be deleted"])

    proxy.mend()
    await ada.live()
    await expect(ada.texts).to_have_text(["hello Bob", "edited by nowedited"])
    await expect(ada.message("This message was deleted.")).to_have_count(1)
    await expect(ada.message("hello Bob").locator(".reaction")).to_have_text("👍1")


async def test_a_wire_that_falls_silent_is_noticed_by_the_page(
    demo_server: Server, proxy: TcpProxy, open_chat: OpenChat
):
    """No browser reports it: the socket stays open, and nothing comes. Time in Ada's page is moved by hand."""
    ada, bob = await acquaint(demo_server)
    chat = await open_chat(proxy.url, ada, load=False)
    await chat.page.clock.install()
    await (await chat.load()).open("Bob")
    chat.watch.expects(BROKEN_WIRE)

    proxy.hold()
    await demo_server.send(bob, ada, "meanwhile")
    await chat.page.clock.fast_forward((WATCHDOG_SECONDS + 1) * 1000)
    await expect(chat.state).to_have_text("Reconnecting")
    await expect(chat.texts).to_have_text(["hello Bob"])

    proxy.mend()
    await chat.live()
    await expect(chat.texts).to_have_text(["hello Bob", "meanwhile"])


async def test_what_is_written_without_a_wire_waits_says_so_and_is_sent_in_order(
    ada_behind_proxy: tuple[Chat, Chat], proxy: TcpProxy
):
    ada, bob = ada_behind_proxy
    await proxy.cut()
    await expect(ada.state).to_have_text("Reconnecting")
    for number, text in enumerate(("first", "second", "third"), 1):
        await ada.write(text)
        await expect(ada.state).to_have_text(f"Reconnecting · {number} waiting")
    await expect(ada.ticks("third")).to_have_text("Sending")
    await expect(bob.texts).to_have_text(["hello Bob"])

    proxy.mend()
    await ada.live()
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(["hello Bob", "first", "second", "third"])
    await expect(ada.ticks("third")).to_have_text(re.compile("Sent|Read"))


async def test_a_page_that_is_opened_without_its_server_says_so_and_comes_by_itself(
    demo_server: Server, proxy: TcpProxy, open_chat: OpenChat
):
    ada, _ = await acquaint(demo_server)
    chat = await open_chat(proxy.url, ada)
    chat.watch.expects(BROKEN_WIRE)
    # The page itself is there; nothing that it asks for then is.
    await chat.page.route("**/api/**", lambda route: route.abort("connectionreset"))
    await chat.page.reload()
    await expect(chat.state).to_have_text("Connecting")
    await expect(chat.page.get_by_role("alert")).to_contain_text("Your chats cannot be read")

    await chat.page.unroute("**/api/**")
    await chat.live()
    await expect(chat.conversations).to_have_count(1)
