"""One Chromium per worker, a context per person, and the page that `make page` builds.

Without Chromium or Node the tests that ask for these are skipped, and say so.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.async_api import Browser, BrowserContext, async_playwright

from tests.support.browser import ARGUMENTS, BROKEN_WIRE, CHROMIUM, Chat, Watch, acquaint
from tests.support.proxy import TcpProxy
from tests.support.servers import Server

ROOT = Path(__file__).parents[3]
BUILD_SECONDS = 100  # with the installation of what it is built with

OpenChat = Callable[..., Awaitable[Chat]]


@pytest.fixture(scope="session")
def built_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo chat, built from this very tree."""
    if shutil.which("node") is None or shutil.which("make") is None:
        pytest.skip("the demo chat cannot be built: Node or make is not installed")
    # All workers of a run share the parent of their own folders; one of them builds.
    with FileLock(tmp_path_factory.getbasetemp().parent / "page.lock", timeout=BUILD_SECONDS):
        done = subprocess.run(
            ["make", "page"], cwd=ROOT, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
    if "needs Node" in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "frontend/demo/dist"


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The Chromium of this worker."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=30_000)
        yield browser
        async with asyncio.timeout(20):
            await browser.close()


@pytest.fixture
async def demo_server(built_page: Path, start_server: Callable[..., Awaitable[Server]]) -> Server:
    """A development server, which serves the demo chat at `/`."""
    return await start_server(app_env="development")


@pytest.fixture
async def open_chat(chromium: Browser) -> AsyncIterator[OpenChat]:
    """Open the demo chat of a user: `await open_chat(server.url, "ada")`.

    Each call makes a browser context of its own, `beside=other` a further tab in the other's context. Keywords
    are options of the context, such as `viewport` and `color_scheme`. A page that has made an error which the
    test did not expect fails it.
    """
    watches: list[Watch] = []

    async def open_one(
        url: str, user: str, *, beside: Chat | None = None, load: bool = True, **options: object
    ) -> Chat:
        if beside is not None:
            watch = beside.watch
        else:
            context = await chromium.new_context(**options)  # type: ignore[arg-type]
            watch = Watch(context, url)
            watches.append(watch)
        chat = Chat(await watch.context.new_page(), watch, url, user)
        return await chat.load() if load else chat

    try:
        yield open_one
    finally:
        for watch in watches:
            await close(watch.context)
    assert [error for watch in watches for error in watch.unexpected()] == []


async def close(context: BrowserContext) -> None:
    async with asyncio.timeout(20):
        await context.close()


@pytest.fixture
async def proxy(demo_server: Server) -> AsyncIterator[TcpProxy]:
    """A wire to the demo server that can be cut."""
    async with TcpProxy(demo_server.port) as proxy:
        yield proxy


@pytest.fixture
async def ada_and_bob(demo_server: Server, open_chat: OpenChat) -> tuple[Chat, Chat]:
    """Two people, each in a browser of their own, with their conversation open and "hello Bob" in it."""
    return await _meet(demo_server, open_chat, demo_server.url)


@pytest.fixture
async def ada_behind_proxy(demo_server: Server, proxy: TcpProxy, open_chat: OpenChat) -> tuple[Chat, Chat]:
    """The same two; Ada's wire can be cut, Bob's holds."""
    ada, bob = await _meet(demo_server, open_chat, proxy.url)
    ada.watch.expects(BROKEN_WIRE)
    return ada, bob


async def _meet(server: Server, open_chat: OpenChat, url_for_ada: str) -> tuple[Chat, Chat]:
    ada, bob = await acquaint(server)
    one, other = await asyncio.gather(open_chat(url_for_ada, ada), open_chat(server.url, bob))
    await asyncio.gather(one.open("Bob"), other.open("Ada"))
    return one, other
