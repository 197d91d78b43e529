"""React's StrictMode runs every effect twice, in a development build only: so one is made for these tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from tests.plugins.browser import OpenChat
from tests.support.browser import Chat, acquaint, metric
from tests.support.servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(120)]

FRONTEND = Path(__file__).parents[3] / "frontend"
BUILD_SECONDS = 60
SESSIONS = "POST /api/v1/messages/stream/session"
STREAMS = "GET /api/v1/messages/stream"


@pytest.fixture(scope="module")
def strict_page(built_page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo chat with React's development build, whose StrictMode does something."""
    folder = tmp_path_factory.mktemp("strict")
    done = subprocess.run(
        [
            *("node_modules/.bin/vite", "build", "--config", "demo/vite.config.ts"),
            *("--mode", "development", "--outDir", str(folder), "--logLevel", "warn"),
        ],
        cwd=FRONTEND,
        env={**os.environ, "NODE_ENV": "development"},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


async def serve(chat: Chat, folder: Path) -> None:
    """Give the page its files from the folder; everything else is the server's."""

    async def page(route: Route) -> None:
        await route.fulfill(path=folder / "index.html", content_type="text/html")

    async def asset(route: Route) -> None:
        await route.fulfill(path=folder / "assets" / route.request.url.rpartition("/")[2])

    await chat.page.route(f"{chat.url}/", page)
    await chat.page.route(f"{chat.url}/assets/*", asset)


async def test_strict_mode_opens_one_stream_and_doubles_nothing(
    strict_page: Path, demo_server: Server, open_chat: OpenChat
):
    names = await acquaint(demo_server)
    ada, bob = [await open_chat(demo_server.url, name, load=False) for name in names]
    await serve(ada, strict_page)
    await serve(bob, strict_page)
    await asyncio.gather(ada.load(), bob.load())
    await asyncio.gather(ada.open("Bob"), bob.open("Ada"))

    await bob.write("hello Ada")
    for chat in (ada, bob):
        await expect(chat.texts).to_have_text(["hello Bob", "hello Ada"])
        assert chat.watch.requests.count("GET /dev/users") == 2, "no effect has run twice: this test tests nothing"
        assert chat.watch.requests.count(SESSIONS) == 1
        assert chat.watch.requests.count(STREAMS) == 1
    assert await metric(demo_server, "gapless_streams_opened_total") == 2
    assert await metric(demo_server, "gapless_streams_open") == 2
    assert bob.watch.requests.count("POST /api/v1/messages/send") == 1
