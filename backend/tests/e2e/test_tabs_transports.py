"""How the stream is opened where the page is not at home: on another origin, and on another site."""

from __future__ import annotations

import pytest

from tests.support.browser import BROKEN_WIRE, UNAUTHORIZED
from tests.support.tabs import Desk, OpenDesk

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(120)]

# To a browser 127.0.0.1 and localhost are two sites; two ports of one of them are two origins of one site.
OTHER_SITE = "localhost"
SESSION = "POST /api/v1/messages/stream/session"
TICKET = "POST /api/v1/messages/stream/ticket"


async def test_on_another_origin_of_the_site_the_cookie_opens_the_stream(open_desk: OpenDesk):
    desk = await open_desk()
    await desk.open()
    assert_asked(desk, {SESSION: 1, TICKET: 0})
    await goes_on_after_a_restart(desk)
    assert_asked(desk, {TICKET: 0})


async def test_on_another_site_a_ticket_does_where_the_cookie_is_not_kept(open_desk: OpenDesk):
    desk = await open_desk()
    desk.watch.expects(UNAUTHORIZED)
    await desk.open(host=OTHER_SITE)
    assert_asked(desk, {SESSION: 2, TICKET: 1})
    assert await desk.context.cookies() == []
    await goes_on_after_a_restart(desk)


async def test_on_another_site_the_cookie_is_kept_if_the_server_says_that_it_may(open_desk: OpenDesk):
    desk = await open_desk(stream_cookie_samesite="none")
    await desk.open(host=OTHER_SITE)
    assert_asked(desk, {SESSION: 1, TICKET: 0})
    [cookie] = await desk.context.cookies()
    assert (cookie["sameSite"], cookie["secure"], cookie["httpOnly"]) == ("None", True, True)
    assert cookie.get("partitionKey"), cookie
    await goes_on_after_a_restart(desk)


@pytest.mark.parametrize("transport, tickets", [("ticket", 1), ("fetch", 0)])
async def test_what_needs_no_cookie_asks_for_none(open_desk: OpenDesk, transport: str, tickets: int):
    desk = await open_desk()
    await desk.open(2, host=OTHER_SITE, transport=transport)
    assert_asked(desk, {SESSION: 0, TICKET: tickets})
    assert await desk.context.cookies() == []
    await goes_on_after_a_restart(desk)


async def goes_on_after_a_restart(desk: Desk) -> None:
    """What is written while the stream is gone comes after it, and one stream is open again."""
    desk.watch.expects(BROKEN_WIRE)
    desk.server.kill()
    await desk.server.start()
    for _ in range(3):
        await desk.talk.say()
    await desk.check()
    assert await desk.streams.look() == 1


def assert_asked(desk: Desk, counts: dict[str, int]) -> None:
    assert {request: desk.watch.requests.count(request) for request in counts} == counts
