"""Seven tabs of the demo chat over HTTP/1.1, where a browser opens six connections to a server."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.plugins.browser import OpenChat
from tests.support.browser import Chat, acquaint, metric
from tests.support.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(90)]

TABS = 7


async def test_seven_tabs_share_one_stream_and_the_seventh_can_write(demo_server: Server, open_chat: OpenChat):
    ada, bob = await acquaint(demo_server)
    tabs: list[Chat] = []
    for _ in range(TABS):
        beside = tabs[0] if tabs else None
        tabs.append(await (await open_chat(demo_server.url, ada, beside=beside)).open("Bob"))
    assert await metric(demo_server, "gapless_streams_open") == 1

    await tabs[-1].write("from the seventh tab")
    await expect(tabs[-1].ticks("from the seventh tab")).to_have_text("Sent")
    await demo_server.send(bob, ada, "from Bob")
    for tab in tabs:
        await expect(tab.texts).to_have_text(["hello Bob", "from the seventh tab", "from Bob"])

    await tabs.pop(0).page.close()  # the first to come holds the stream
    await demo_server.send(bob, ada, "after the first tab")
    await tabs[0].write("from the second tab")
    for tab in tabs:
        for words in ("after the first tab", "from the second tab"):
            await expect(tab.message(words)).to_have_count(1)
    assert await metric(demo_server, "gapless_streams_open") == 1
    assert sum(request.endswith("/messages/stream") for request in tabs[0].watch.requests) == 2
