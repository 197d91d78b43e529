"""Two people chat in two browsers, and each sees what the other does."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest
from playwright.async_api import expect

from tests.support.browser import Chat, acquaint

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(120)]

# Resolves with the time, in ms since the epoch, at which the text was on the page.
SEEN_AT = """text => new Promise(resolve => {
    const log = document.querySelector("[role=log]");
    const look = () => log.textContent.includes(text) && resolve(Date.now());
    new MutationObserver(look).observe(log, {childList: true, characterData: true, subtree: true});
})"""


async def test_a_message_is_on_the_other_screen_at_once_and_once(ada_and_bob: tuple[Chat, Chat], record_property):
    ada, bob = ada_and_bob
    took_ms = []
    for number in range(5):
        seen = asyncio.create_task(ada.evaluate(SEEN_AT, f"number {number}"))
        await bob.field.fill(f"number {number}")
        sent_at = time.time()
        await bob.field.press("Enter")
        took_ms.append(await seen - sent_at * 1000)
    everything = ["hello Bob", *(f"number {number}" for number in range(5))]
    await expect(ada.texts).to_have_text(everything)
    await expect(bob.texts).to_have_text(everything)

    # How long is said and not judged: the machine may be busy. That it came at all was waited for.
    record_property("key_to_other_screen_ms", took_ms)
    print(f"\nkey to other screen: {statistics.median(took_ms):.0f} ms, median of 5")  # noqa: T201 - seen with -s


async def test_an_edit_and_a_delete_show_on_the_other_side(ada_and_bob: tuple[Chat, Chat]):
    ada, bob = ada_and_bob
    await ada.write("Tuseday?")
    await expect(bob.texts).to_have_text(["hello Bob", "Tuseday?"])

    await ada.tool("Tuseday?", "Edit")
    await ada.field.fill("Tuesday?")
    await ada.field.press("Enter")
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(["hello Bob", "Tuesday?edited"])

    await ada.tool("Tuesday?", "Delete")
    await ada.page.get_by_role("button", name="Delete for everyone").click()
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(["hello Bob"])
        await expect(chat.message("This message was deleted.")).to_have_count(1)


async def test_a_reaction_is_counted_on_both_sides_and_taken_back(ada_and_bob: tuple[Chat, Chat]):
    ada, bob = ada_and_bob
    reactions = [chat.message("hello Bob").locator(".reaction") for chat in (ada, bob)]
    await bob.tool("hello Bob", "React")
    await bob.page.get_by_role("dialog", name="React with").get_by_role("button", name="party").first.click()
    for each in reactions:
        await expect(each).to_have_text("🎉1")

    await reactions[0].click()
    for each in reactions:
        await expect(each).to_have_text("🎉2")
    await reactions[1].click()
    for each in reactions:
        await expect(each).to_have_text("🎉1")
    await expect(reactions[0]).to_have_attribute("aria-pressed", "true")
    await expect(reactions[1]).to_have_attribute("aria-pressed", "false")


async def test_a_reply_quotes_what_it_answers(ada_and_bob: tuple[Chat, Chat]):
    ada, bob = ada_and_bob
    await bob.tool("hello Bob", "Reply")
    await bob.write("hello yourself")
    for chat in (ada, bob):
        reply = chat.page.locator("[role=log] article").last
        await expect(reply.locator(".bubble-text")).to_have_text("hello yourself")
        await expect(reply.locator(".quote")).to_have_text("Adahello Bob")


async def test_a_message_is_unread_until_it_was_on_the_screen_and_its_writer_sees_when(demo_server, open_chat):
    names = await acquaint(demo_server)
    ada, bob = await asyncio.gather(*(open_chat(demo_server.url, name) for name in names))
    await ada.open("Bob")
    await expect(bob.conversations.locator(".badge")).to_have_text("11 unread")
    await expect(ada.ticks("hello Bob")).to_have_text("Sent")

    await bob.open("Ada")
    await expect(ada.ticks("hello Bob")).to_have_text("Read")
    await expect(bob.conversations.locator(".badge")).to_have_count(0)
    await expect(bob.page.get_by_role("separator", name="New messages")).to_have_count(1)


async def test_typing_shows_while_it_lasts(ada_and_bob: tuple[Chat, Chat]):
    ada, bob = ada_and_bob
    typing = ada.page.locator(".composer .typing")
    await bob.field.press_sequentially("hel")
    await expect(typing).to_have_text("Bob is typing")
    await bob.field.fill("")
    await expect(typing).to_have_text("")

    await bob.field.press_sequentially("hello")
    await expect(typing).to_have_text("Bob is typing")
    await bob.field.press("Enter")
    await expect(ada.texts).to_have_text(["hello Bob", "hello"])
    await expect(typing).to_have_text("")
