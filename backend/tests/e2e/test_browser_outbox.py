"""What was written is sent once, whatever becomes of the request, the wire and the page."""

from __future__ import annotations

import pytest
from playwright.async_api import Route, expect

from tests.plugins.browser import OpenChat
from tests.support.browser import Chat, acquaint, metric
from tests.support.proxy import TcpProxy
from tests.support.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.faults, pytest.mark.timeout(120)]

SENDS = "POST /api/v1/messages/send"
REPEATS = 'gapless_http_requests_total{method="POST",route="/api/v1/messages/send",status="200"}'
TEXT = "the one whose answer is lost"
SEND_AND_LEAVE = "field => { field.form.requestSubmit(); location.replace('about:blank'); }"


@pytest.mark.parametrize("and_stream", [False, True], ids=["answer", "answer and stream"])
async def test_a_send_whose_answer_is_lost_is_repeated_and_shown_once(
    ada_behind_proxy: tuple[Chat, Chat], proxy: TcpProxy, and_stream: bool
):
    """With the stream the echo comes, and settles it; without, only the repeated request can."""
    ada, bob = ada_behind_proxy
    proxy.cut_before_reply_to(TEXT.encode(), and_all_others=and_stream)
    await ada.write(TEXT)
    await expect(bob.texts).to_have_text(["hello Bob", TEXT])
    assert proxy.cuts == 1
    if and_stream:
        await expect(ada.state).to_have_text("Reconnecting · 1 waiting")
        proxy.mend()

    await ada.live()
    await expect(ada.ticks(TEXT)).to_have_text("Read")
    await bob.write("got it")
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(["hello Bob", TEXT, "got it"])


async def test_a_send_whose_answer_is_lost_is_repeated_by_the_next_page(
    ada_behind_proxy: tuple[Chat, Chat], proxy: TcpProxy, demo_server: Server
):
    ada, bob = ada_behind_proxy
    proxy.cut_before_reply_to(TEXT.encode(), and_all_others=True)
    await ada.write(TEXT)
    await expect(bob.texts).to_have_text(["hello Bob", TEXT])
    await expect(ada.state).to_have_text("Reconnecting · 1 waiting")
    await leave(ada)

    proxy.mend()
    await (await ada.load()).open("Bob")
    await bob.write("got it")
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(["hello Bob", TEXT, "got it"])
    assert await metric(demo_server, REPEATS) == 1, "the next page need not have asked again: this test tests nothing"


async def test_what_was_never_sent_is_sent_by_the_next_page_in_order(
    ada_behind_proxy: tuple[Chat, Chat], proxy: TcpProxy, demo_server: Server
):
    ada, bob = ada_behind_proxy
    await proxy.cut()
    await expect(ada.state).to_have_text("Reconnecting")
    for number, text in enumerate(("one", "two", "three"), 1):
        await ada.write(text)
        await expect(ada.state).to_have_text(f"Reconnecting · {number} waiting")
    await leave(ada)

    proxy.mend()
    await (await ada.load()).open("Bob")
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(["hello Bob", "one", "two", "three"])
    await bob.write("got them")
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(["hello Bob", "one", "two", "three", "got them"])


async def test_what_was_written_in_the_moment_of_leaving_is_sent_by_the_next_page(
    ada_behind_proxy: tuple[Chat, Chat], proxy: TcpProxy
):
    ada, bob = ada_behind_proxy
    await proxy.cut()
    await expect(ada.state).to_have_text("Reconnecting")
    await ada.field.fill(TEXT)
    async with ada.page.expect_navigation(url="about:blank"):
        await ada.field.evaluate(SEND_AND_LEAVE)

    proxy.mend()
    await (await ada.load()).open("Bob")
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(["hello Bob", TEXT])


async def test_a_send_that_is_refused_says_so_until_it_is_tried_again_or_given_up(
    demo_server: Server, open_chat: OpenChat
):
    """A refusal is an answer: it is not asked again by itself, and nothing behind it waits."""
    ada, _ = await acquaint(demo_server)
    chat = await open_chat(demo_server.url, ada)
    await chat.open("Bob")
    chat.watch.expects("status of 422 ")
    await chat.page.route("**/messages/send", make_invalid)
    for text in ("refused", "given up"):
        await chat.write(text)
        await expect(chat.message(text).get_by_role("alert")).to_contain_text("Not sent.")
    await chat.page.unroute("**/messages/send")
    assert chat.watch.requests.count(SENDS) == 2

    await chat.write("goes on")
    await expect(chat.texts).to_have_text(["hello Bob", "goes on", "refused", "given up"])
    await chat.live()
    await chat.message("refused").get_by_role("button", name="Try again").click()
    await chat.message("given up").get_by_role("button", name="Discard").click()
    await expect(chat.page.get_by_text("Not sent.")).to_have_count(0)
    await expect(chat.texts).to_have_text(["hello Bob", "goes on", "refused"])
    await expect(chat.ticks("refused")).to_have_text("Sent")
    assert chat.watch.requests.count(SENDS) == 4


async def make_invalid(route: Route) -> None:
    await route.continue_(post_data={**(route.request.post_data_json or {}), "content": ""})


async def leave(chat: Chat) -> None:
    """Leave the page, as a reload does before the next one is there."""
    await chat.page.goto("about:blank")
