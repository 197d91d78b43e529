"""The demo chat in a real Chromium: what a person does in it, and a watch on what goes wrong meanwhile."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from playwright.async_api import (
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Error,
    Locator,
    Page,
    Request,
    WebError,
    expect,
)

from tests.support.servers import Server, new_user

CHROMIUM: Final = Path("/usr/bin/chromium")
ARGUMENTS: Final = ("--no-sandbox", "--disable-dev-shm-usage")  # a container runs as root, with 64 MB there
PATIENCE_MS: Final = 15_000
"""For everything that a page is waited for."""

# What Chromium writes to the console by itself when a request fails.
BROKEN_WIRE: Final = (
    r"net::ERR_(CONNECTION_\w+|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|CONTENT_LENGTH_MISMATCH|"
    r"RESPONSE_HEADERS_TRUNCATED|SOCKET_NOT_CONNECTED)"
)
UNAUTHORIZED: Final = r"status of 401 "
UNAVAILABLE: Final = r"status of 503 "

expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Watch:
    """What no page of a context may do. A test names what it provokes itself: `expects(BROKEN_WIRE)`."""

    context: BrowserContext
    origin: str
    errors: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Method and path of every request, as the pages made them."""

    def __post_init__(self) -> None:
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.on("console", self._on_console)
        self.context.on("weberror", self._on_error)
        self.context.on("dialog", self._on_dialog)
        self.context.on("request", self._on_request)
        self.context.on("page", self._on_page)

    def expects(self, *patterns: str) -> None:
        """Errors that hold one of these (regular expressions) are the test's own doing."""
        self.expected.extend(patterns)

    def unexpected(self) -> list[str]:
        return [error for error in self.errors if not any(re.search(each, error) for each in self.expected)]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning", "assert"}:
            self.errors.append(f"console: {message.text} ({message.location.get('url')})")

    def _on_error(self, error: WebError) -> None:
        self.errors.append(f"not caught: {error.error}")

    async def _on_dialog(self, dialog: Dialog) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        self.requests.append(f"{request.method} {parts.path}")
        if f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.errors.append(f"request elsewhere: {request.url}")

    def _on_page(self, page: Page) -> None:
        page.on("crash", lambda _: self.errors.append("the page crashed"))


@dataclass
class Chat:
    """The chat of one person, in one tab."""

    page: Page
    watch: Watch
    url: str
    user: str

    async def load(self) -> Chat:
        """Open the page, signed in as the user, and wait until its stream is open."""
        await self.page.goto(f"{self.url}/#{quote(self.user)}")
        return await self.live()

    async def live(self) -> Chat:
        """Wait until the page says that it is connected and nothing waits to be sent."""
        await expect(self.state).to_have_text("Live")
        return self

    async def evaluate(self, function: str, argument: object = None) -> Any:
        """Call a JavaScript function in the page; Playwright itself sets no time-out here."""
        async with asyncio.timeout(PATIENCE_MS / 1000):
            return await self.page.evaluate(function, argument)

    async def settled(self) -> None:
        """Wait until nothing moves any more, but for what moves for ever."""
        await self.evaluate("""() => Promise.allSettled(document.getAnimations()
            .filter(each => each.effect.getComputedTiming().endTime < Infinity && each.playState === "running")
            .map(each => each.finished)).then(() => {})""")

    @property
    def state(self) -> Locator:
        """What the page says of its connection, in a word or two."""
        return self.page.locator(".pane-bar .state")

    @property
    def notice(self) -> Locator:
        """The sentence above the chat; there is none while all is well."""
        return self.page.locator(".notice")

    @property
    def conversations(self) -> Locator:
        return self.page.locator("[data-conversation]")

    async def open(self, title: str) -> Chat:
        """Open the conversation with this title, and wait until its messages are there."""
        await self.conversations.filter(has=self.page.get_by_text(title, exact=True)).click()
        await expect(self.page.get_by_role("log")).to_be_visible()
        return self

    @property
    def texts(self) -> Locator:
        """The text of each message on the screen: `await expect(chat.texts).to_have_text(["one", "two"])`."""
        return self.page.locator("[role=log] .bubble-text")

    def message(self, text: str) -> Locator:
        """The message that holds this text, with its reactions, time and tools."""
        return self.page.locator("[role=log] article").filter(has_text=text)

    def ticks(self, text: str) -> Locator:
        """How far the message got: "Sending", "Sent", "Read"."""
        return self.message(text).locator(".meta .unseen")

    @property
    def field(self) -> Locator:
        return self.page.locator(".composer textarea")

    async def write(self, text: str) -> None:
        """Write a message and send it; it need not arrive."""
        await self.field.fill(text)
        await self.field.press("Enter")

    async def tool(self, text: str, name: str) -> None:
        """Press a button of a message: React, Reply, Edit, Delete."""
        button = self.message(text).get_by_role("button", name=name, exact=True)
        for _ in range(PATIENCE_MS // 1_500):
            await self.message(text).hover()
            try:
                return await button.click(timeout=1_500)
            except Error:  # the list moved, and the message is no longer below the pointer
                continue
        raise AssertionError(f"{name} of {text!r} cannot be pressed")


async def name_user(server: Server, user: str, name: str) -> None:
    """Let a development server know this user by a name."""
    status, answer = await server.call("POST", "/dev/token", json={"user_id": user, "name": name})
    assert status == 200, answer


async def acquaint(server: Server) -> tuple[str, str]:
    """Make two users, Ada and Bob, who share a conversation with one message in it: "hello Bob"."""
    ada, bob = new_user("ada"), new_user("bob")
    await name_user(server, ada, "Ada")
    await name_user(server, bob, "Bob")
    await server.send(ada, bob, "hello Bob")
    return ada, bob


async def metric(server: Server, name: str) -> float:
    """One number of a development server's `/metrics`; 0 for one with labels that never happened."""
    assert server.session is not None
    async with server.session.get(f"{server.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)
