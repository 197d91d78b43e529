"""A token ends in the middle of a conversation: the page asks for another, and says so where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import jwt
import pytest
from playwright.async_api import Route, expect

from tests.plugins.browser import OpenChat
from tests.support.browser import BROKEN_WIRE, UNAUTHORIZED, Chat, acquaint
from tests.support.proxy import TcpProxy
from tests.support.servers import API_KEY, Server, token_for

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(120)]

LIFETIME_SECONDS = 3


class Issuer:
    """The route of a host app that signs tokens, in the place of the development server's."""

    def __init__(self, sign: Callable[[], str]) -> None:
        self.sign = sign
        self.issued = 0

    async def put_into(self, chat: Chat) -> None:
        await chat.page.route("**/dev/token", self._answer)

    async def _answer(self, route: Route) -> None:
        self.issued += 1
        await route.fulfill(json={"token": self.sign()})


def forged_for(user: str) -> str:
    claims = jwt.decode(token_for(user), options={"verify_signature": False})
    return jwt.encode(claims, "a secret that this server does not know", algorithm="HS256")


async def test_a_token_that_ends_is_replaced_and_nothing_is_lost(demo_server: Server, open_chat: OpenChat):
    names = await acquaint(demo_server)
    tall = {"width": 1280, "height": 4000}  # every message is on the screen
    ada, bob = [await open_chat(demo_server.url, name, load=False, viewport=tall) for name in names]
    short_lived = iter([LIFETIME_SECONDS / 60])
    issuer = Issuer(lambda: token_for(names[0], minutes=next(short_lived, 60)))
    await issuer.put_into(ada)
    ada.watch.expects(UNAUTHORIZED)
    await asyncio.gather(ada.load(), bob.load())
    await asyncio.gather(ada.open("Bob"), bob.open("Ada"))

    told = ["hello Bob"]
    async with asyncio.timeout(30):
        # Bob goes on writing while the first token ends, its stream with it, and the second is asked for.
        while issuer.issued < 2:
            told.append(f"number {len(told)}")
            await bob.write(told[-1])
            await expect(bob.texts).to_have_count(len(told))
            await asyncio.sleep(0.1)
    await ada.live()
    await ada.write("still here")
    told.append("still here")
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(told)
    assert issuer.issued == 2


async def test_a_page_whose_tokens_stay_refused_says_so_and_stops(
    demo_server: Server, proxy: TcpProxy, open_chat: OpenChat
):
    """Ten minutes in which nothing is asked; time in the page is moved by hand."""
    ada, bob = await acquaint(demo_server)
    chat = await open_chat(proxy.url, ada, load=False)
    chat.watch.expects(UNAUTHORIZED, BROKEN_WIRE)
    await chat.page.clock.install()
    issuer = Issuer(lambda: token_for(ada))
    await issuer.put_into(chat)
    await (await chat.load()).open("Bob")

    await proxy.cut()
    await expect(chat.state).to_have_text("Reconnecting")
    assert await requests_in_ten_minutes(chat) > 0, "what is counted are requests"

    issuer.sign = lambda: forged_for(ada)
    issued = issuer.issued
    await demo_server.call("POST", f"/users/{ada}/revoke", headers={"X-API-Key": API_KEY})
    proxy.mend()
    await chat.page.get_by_role("button", name="Try now").click()
    await expect(chat.state).to_have_text("Signed out")
    await expect(chat.notice).to_have_text("You have been signed out. Sign in again to go on.")
    assert issuer.issued == issued + 1, "one fresh token is asked for, and no other"
    await demo_server.send(bob, ada, "can you read this?")
    assert await requests_in_ten_minutes(chat) == 0
    await expect(chat.texts).to_have_text(["hello Bob"])


async def requests_in_ten_minutes(chat: Chat) -> int:
    before = len(chat.watch.requests)
    await chat.page.clock.run_for(600_000)
    async with chat.page.expect_request("**/health"):
        await chat.evaluate("fetch('/health').catch(() => {})")
    return chat.watch.requests[before:].index("GET /health")
