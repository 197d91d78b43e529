"""The watch that every browser test relies on sees what it is there for."""

from __future__ import annotations

import asyncio

import pytest

from tests.plugins.browser import OpenChat
from tests.support.servers import Server, new_user

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(120)]


FAULTS = {
    "console.error('a word')": "console: a word",
    "setTimeout(() => { throw new Error('thrown') })": "not caught: thrown",
    "void Promise.reject(new Error('rejected'))": "not caught: rejected",
    "setTimeout(() => document.body.insertAdjacentHTML('beforeend', '<b>'))": "TrustedHTML",
    "setTimeout(() => alert('hello'))": "dialog: hello",
    "void fetch('//elsewhere.invalid/').catch(() => {})": "Connecting to 'http://elsewhere.invalid/' violates",
}


async def test_every_fault_of_a_page_is_seen(demo_server: Server, open_chat: OpenChat):
    chat = await open_chat(demo_server.url, new_user("ada"))
    for fault, seen_as in FAULTS.items():
        await chat.evaluate(f"() => {{ {fault} }}")
        async with asyncio.timeout(15):
            while not any(seen_as in error for error in chat.watch.errors):
                await asyncio.sleep(0.02)
        chat.watch.errors.clear()
    chat.watch.expects("")
