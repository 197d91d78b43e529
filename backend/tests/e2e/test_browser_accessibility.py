"""axe-core finds nothing serious in what the demo chat shows, on a phone and on a desk, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import expect

from tests.plugins.browser import OpenChat
from tests.support.browser import BROKEN_WIRE, Chat, name_user
from tests.support.proxy import TcpProxy
from tests.support.servers import Server, new_user

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(120)]

AXE = Path(__file__).parents[3] / "frontend/node_modules/axe-core/axe.min.js"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LOOKS = [(width, scheme) for width in (390, 1440) for scheme in SCHEMES]
RUN = """() => axe.run({resultTypes: ["violations"]}).then(({violations}) => [
    getComputedStyle(document.body).backgroundColor,
    violations
        .filter(({impact}) => impact === "serious" || impact === "critical")
        .map(({id, nodes}) => `${id}: ${nodes.map(({html}) => html.slice(0, 200)).join(" | ")}`),
])"""


async def look(chat: Chat, state: str) -> list[str]:
    """What axe-core has against this state, in all looks."""
    found, grounds = [], set()
    for width, scheme in LOOKS:
        await chat.page.set_viewport_size({"width": width, "height": 800})
        await chat.page.emulate_media(color_scheme=scheme)
        await chat.settled()
        ground, violations = await chat.evaluate(RUN)
        grounds.add(ground)
        found += [f"{state}, {width} px, {scheme}: {each}" for each in violations]
    assert len(grounds) == 2, "light and dark look the same"
    return found


@pytest.fixture
async def chat(demo_server: Server, proxy: TcpProxy, open_chat: OpenChat) -> Chat:
    """Ada's page before it is loaded; she has a group with every kind of message in it."""
    ada, bob, eve = new_user("ada"), new_user("bob"), new_user("eve")
    for user, name in ((ada, "Ada Lovelace"), (bob, "Bob"), (eve, "Eve Moneypenny")):
        await name_user(demo_server, user, name)
    await demo_server.send(eve, ada, "have you seen https://example.com/a?")
    group = await demo_server.group(ada, bob, eve, title="Lunch")
    first = await demo_server.post(bob, group, "Pizza?")
    await demo_server.post(ada, group, "Again?", reply_to_id=first["id"])
    edited = await demo_server.post(eve, group, "Soup")
    gone = await demo_server.post(eve, group, "gone")
    await demo_server.post(ada, group, "\U0001f355")
    for method, path, user, body in (
        ("PUT", f"/messages/{first['id']}/reactions/👍", ada, None),
        ("PUT", f"/messages/{first['id']}/reactions/🎉", eve, None),
        ("PATCH", f"/messages/{edited['id']}", eve, {"content": "Soup, please"}),
        ("DELETE", f"/messages/{gone['id']}", eve, None),
        ("POST", f"/conversations/{group}/read", bob, {"seq": 5}),
    ):
        assert (await demo_server.call(method, path, user=user, json=body))[0] < 300
    for number in range(3):
        await demo_server.post(bob, group, f"number {number}")
    # Before the page's own scripts, and past its policy, which lets no foreign script in.
    chat = await open_chat(proxy.url, ada, load=False)
    await chat.page.add_init_script(path=AXE)
    chat.watch.expects(BROKEN_WIRE)
    return chat


async def test_signing_in_and_the_list_have_no_serious_fault(chat: Chat):
    await chat.page.goto(chat.url)
    await expect(chat.page.get_by_text("Ada Lovelace")).to_be_visible()
    found = await look(chat, "signing in")
    await chat.load()
    await expect(chat.conversations).to_have_count(2)
    found += await look(chat, "the list")
    await chat.page.get_by_role("button", name="Menu").click()
    await expect(chat.page.locator(".menu")).to_be_visible()
    found += await look(chat, "the menu")
    await chat.page.keyboard.press("Escape")
    await chat.page.get_by_role("button", name="New chat").click()
    await expect(chat.page.locator(".person")).to_have_count(2)
    for name in ("Bob", "Eve Moneypenny"):
        await chat.page.get_by_text(name, exact=True).last.click()
    found += await look(chat, "a new group")
    assert found == []

    await chat.evaluate("() => document.querySelectorAll('button').forEach(each => each.removeAttribute('aria-label'))")
    await chat.evaluate("() => document.querySelectorAll('button').forEach(each => each.removeAttribute('title'))")
    assert any("button-name" in each for each in await look(chat, "buttons without a name"))


async def test_a_conversation_has_no_serious_fault(chat: Chat):
    await (await chat.load()).open("Lunch")
    await expect(chat.texts).to_have_count(7)
    await expect(chat.page.get_by_role("separator", name="New messages")).to_be_visible()
    found = await look(chat, "a conversation")
    await chat.tool("Again?", "Edit")
    found += await look(chat, "editing")
    await chat.page.keyboard.press("Escape")
    await chat.tool("Again?", "React")
    await expect(chat.page.locator(".emoji-panel")).to_be_visible()
    found += await look(chat, "reacting")
    await chat.page.keyboard.press("Escape")
    await chat.page.locator(".conversation-title").click()
    await expect(chat.page.get_by_role("dialog")).to_be_visible()
    found += await look(chat, "the group")
    assert found == []


async def test_trouble_has_no_serious_fault(chat: Chat, proxy: TcpProxy):
    await (await chat.load()).open("Lunch")
    await chat.page.route("**/messages/send", lambda route: route.fulfill(status=422, json={"code": "invalid_request"}))
    chat.watch.expects("status of 422 ")
    await chat.write("not sent")
    await expect(chat.message("not sent").get_by_role("alert")).to_be_visible()
    await chat.page.unroute("**/messages/send")
    await proxy.cut()
    await chat.write("waiting")
    await expect(chat.state).to_have_text("Reconnecting · 1 waiting")
    found = await look(chat, "without a wire")
    proxy.mend()
    await chat.live()
    await expect(chat.notice).to_be_visible()
    found += await look(chat, "back again")
    assert found == []
