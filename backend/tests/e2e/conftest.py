"""What the tests about tabs work on: a browser in which pages are hidden, frozen and kept as with a person."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext

from tests.conftest import StartServer
from tests.support.browser import CHROMIUM, Watch
from tests.support.lifelike import lifelike_chromium
from tests.support.servers import new_user
from tests.support.tabs import Desk, HostApp, OpenDesk, Streams, Talk

FRONTEND = Path(__file__).parents[3] / "frontend"


@pytest.fixture(scope="session")
def tab_page(built_page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `frontend/tests/browser`, built; with the demo's page comes what it is built with."""
    assert built_page.exists()
    folder = tmp_path_factory.mktemp("tab-page")
    command = ["node_modules/.bin/vite", "build", "tests/browser", "--outDir", str(folder), "--emptyOutDir"]
    done = subprocess.run(command, cwd=FRONTEND, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
async def lifelike(tmp_path: Path) -> AsyncIterator[BrowserContext]:
    """A Chromium of the test's own; its pages are tabs of one window."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    async with lifelike_chromium(tmp_path / "profile") as context:
        yield context


@pytest.fixture
async def open_desk(start_server: StartServer, tab_page: Path, lifelike: BrowserContext) -> AsyncIterator[OpenDesk]:
    """Give Ada the browser, and Bob a conversation with her; keywords are settings of the server."""
    watches: list[Watch] = []
    async with AsyncExitStack() as stack:

        async def open_one(**settings: object) -> Desk:
            app = await stack.enter_async_context(HostApp(tab_page))
            origins = f"{app.origin()},{app.origin('localhost')}"
            server = await start_server(app_env="development", cors_origins=origins, **settings)
            ada, bob = new_user("ada"), new_user("bob")
            await server.know(ada, bob)
            first = await server.send(bob, ada, "hello Ada")
            watch = Watch(lifelike, server.url)
            # The page is the app's, and only its streams and calls go to the server.
            watch.expects(f"request elsewhere: {app.origin()}/", f"request elsewhere: {app.origin('localhost')}/")
            watches.append(watch)
            return Desk(server, app, lifelike, watch, ada, Talk(server, bob, first["conversation_id"]), Streams(server))

        yield open_one
        for watch in watches:
            for page in watch.context.pages:
                await page.close()
    assert [error for watch in watches for error in watch.unexpected()] == []
