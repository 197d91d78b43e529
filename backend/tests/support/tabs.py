"""Several tabs of one user in one browser, on the page of somebody's app, while somebody else writes to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

from aiohttp import web
from playwright.async_api import BrowserContext, Page, expect

from tests.support.browser import Watch, metric
from tests.support.servers import Server, token_for

# Whether this very tab holds the lock of the stream: no tab knows its own id but by a lock that nobody else has.
_LEADS = """async ([lock]) => {
    const own = crypto.randomUUID();
    return navigator.locks.request(own, async () => {
        const { held } = await navigator.locks.query();
        const holds = name => held.find(each => each.name === name)?.clientId;
        return holds(lock) !== undefined && holds(lock) === holds(own);
    });
}"""
_HANG = "() => { const asked = new XMLHttpRequest(); asked.open('GET', '/hang', false); asked.send(); }"
_SHOWN = "() => [...document.querySelectorAll('li')].map(each => each.textContent)"
_SEND = "([conversationId, content]) => tab.chat.send({ conversationId, content }).then(({ status }) => status)"
_ELSEWHERE = '<!doctype html><title>Elsewhere</title><link rel="icon" href="data:,">Another page.'
PAGE_SIZE = 50  # what a tab loads when it is opened


class HostApp:
    """The app that the chat was added to: pages of its own, and tokens for its users."""

    def __init__(self, folder: Path) -> None:
        app = web.Application()
        app.router.add_get("/token", self._token)
        app.router.add_get("/elsewhere", self._elsewhere)
        app.router.add_get("/hang", self._hang)
        app.router.add_static("/", folder)
        self._runner = web.AppRunner(app)
        self.port = 0
        self.goes_on = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.goes_on.set()
        await self._runner.cleanup()

    def origin(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}"

    async def _token(self, request: web.Request) -> web.Response:
        return web.Response(text=token_for(request.query["user"]))

    async def _hang(self, _: web.Request) -> web.Response:
        await asyncio.wait_for(self.goes_on.wait(), 60)
        return web.Response()

    async def _elsewhere(self, _: web.Request) -> web.Response:
        return web.Response(text=_ELSEWHERE, content_type="text/html")


@dataclass
class Tab:
    """One tab, whatever may become of it."""

    page: Page
    lock: str

    async def is_live(self) -> Tab:
        await expect(self.page.locator("output")).to_have_text("open")
        return self

    async def leads(self) -> bool:
        return await asyncio.wait_for(self.page.evaluate(_LEADS, [self.lock]), 10)

    async def shown(self) -> list[str]:
        return await self.page.evaluate(_SHOWN)

    async def heard(self) -> list[int]:
        """The seqs of all messages that came as events since the page was loaded."""
        return await self.page.evaluate("tab.heard")

    async def hang(self) -> None:
        """Block the main thread of the page, timers and all, until the app says that it goes on."""
        await self.page.evaluate(_HANG)

    async def send(self, conversation_id: str, content: str) -> str:
        """Give the status that the message ends with."""
        return await asyncio.wait_for(self.page.evaluate(_SEND, [conversation_id, content]), 15)

    async def shows(self, content: str) -> None:
        await expect(self.page.get_by_text(content, exact=True)).to_have_count(1)


@dataclass
class Streams:
    """How many streams the server holds, looked at all the time."""

    server: Server
    counts: list[tuple[float, int]] = field(default_factory=list)

    @property
    def now(self) -> int:
        return self.counts[-1][1]

    def longest_above(self, limit: int) -> float:
        """The longest time, in seconds, that there were more."""
        longest = 0.0
        since: float | None = None
        for at, count in self.counts:
            since = (at if since is None else since) if count > limit else None
            longest = max(longest, at - since if since is not None else 0)
        return longest

    async def look(self) -> int:
        count = int(await metric(self.server, "gapless_streams_open"))
        self.counts.append((time.monotonic(), count))
        return count

    async def watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(0.02)


@dataclass
class Talk:
    """Bob writes to the user without a pause."""

    server: Server
    writer: str
    conversation_id: str
    pause_seconds: float = 0.03
    written: int = 0

    async def go_on(self) -> None:
        while True:
            await self.say()
            await asyncio.sleep(self.pause_seconds)

    async def say(self) -> str:
        content = f"message {self.written}"
        await self.server.post(self.writer, self.conversation_id, content)
        self.written += 1
        return content

    async def all(self, reader: str) -> list[dict]:
        """Every message of the conversation, by REST."""
        found: list[dict] = []
        after = 0
        while True:
            path = f"/conversations/{self.conversation_id}/messages?after={after}&limit=100"
            status, page = await self.server.call("GET", path, user=reader)
            assert status == 200, page
            found += page["items"]
            if not page["has_more"]:
                return found
            after = found[-1]["seq"]


@dataclass
class Desk:
    """Ada's browser with her tabs, Bob who writes to her, and the server between them."""

    server: Server
    app: HostApp
    context: BrowserContext
    watch: Watch
    ada: str
    talk: Talk
    streams: Streams
    tabs: list[Tab] = field(default_factory=list)

    async def open(self, count: int = 1, *, host: str = "127.0.0.1", transport: str = "auto") -> list[Tab]:
        """Open tabs, one after the other, each with its stream open and the conversation loaded."""
        for _ in range(count):
            page = await self.context.new_page()
            query = {
                "server": self.server.url,
                "user": self.ada,
                "conversation": self.talk.conversation_id,
                "transport": transport,
            }
            await page.goto(f"{self.app.origin(host)}/index.html?{urlencode(query)}")
            tab = Tab(page, f"gapless:{self.server.url}:{self.ada}")
            self.tabs.append(await tab.is_live())
            await expect(page.locator("li").first).to_be_attached()
        return self.tabs

    async def leader(self, *, seconds: float = 10, among: list[Tab] | None = None) -> Tab:
        """Wait until one of the tabs holds the stream, and give it."""
        async with asyncio.timeout(seconds):
            while True:
                for tab in among or self.tabs:
                    if await tab.leads():
                        return tab
                await asyncio.sleep(0.02)

    async def led_by_another(self, gone: Tab, *, seconds: float = 10) -> Tab:
        """Wait until one of the other tabs holds the stream, and give it."""
        others = [tab for tab in self.tabs if tab is not gone]
        return await self.leader(seconds=seconds, among=others)

    @asynccontextmanager
    async def while_bob_writes(self, *, pause_seconds: float = 0.03) -> AsyncIterator[None]:
        """Bob writes and the streams are counted; afterwards every tab shows every message once and in order."""
        self.talk.pause_seconds = pause_seconds
        tasks = [asyncio.ensure_future(act()) for act in (self.talk.go_on, self.streams.watch)]
        try:
            await self.said(5)
            yield
            await self.said(5)
        finally:
            for task in tasks:
                task.cancel()
            failed = [
                each for each in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(each, Exception)
            ]
        assert failed == []
        await self.check()

    async def said(self, more: int) -> None:
        """Wait until Bob has written so many more."""
        until = self.talk.written + more
        await eventually(lambda: self.talk.written >= until)

    async def check(self) -> None:
        """Compare what each tab shows, and what each was told, with what is stored."""
        last = await self.talk.say()
        stored = await self.talk.all(self.ada)
        contents = [message["content"] for message in stored]
        assert contents[-1] == last
        for number, tab in enumerate(self.tabs):
            await tab.shows(last)
            shown = await tab.shown()
            assert len(shown) >= min(PAGE_SIZE, len(contents)), number
            assert shown == contents[-len(shown) :], (number, difference(shown, contents))
            heard = await tab.heard()
            assert heard == list(range(heard[0], stored[-1]["seq"] + 1)), (number, heard)


def difference(shown: list[str], contents: list[str]) -> dict[str, list[str]]:
    """What to say when a tab shows something else."""
    expected = contents[-len(shown) :]
    return {
        "missing": [each for each in expected if each not in shown],
        "twice": [each for each in set(shown) if shown.count(each) > 1],
    }


async def eventually(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


OpenDesk = Callable[..., Awaitable[Desk]]
