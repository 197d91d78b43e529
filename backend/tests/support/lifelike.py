"""A Chromium that does to pages what it does to a person's: hidden ones are throttled, frozen, kept for a way back.

Playwright's own makes every page look visible and keeps none, so tests of those would pass for nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from playwright.async_api import BrowserContext, async_playwright

from tests.support.browser import ARGUMENTS, CHROMIUM

_START_SECONDS: Final = 30
_QUIET: Final = (
    "--headless",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-hang-monitor",
    "--disable-sync",
)


@asynccontextmanager
async def lifelike_chromium(profile: Path) -> AsyncIterator[BrowserContext]:
    """Give the context of a browser's one window: its pages are tabs, of which one is visible."""
    process = await asyncio.create_subprocess_exec(
        # It ends with the tests, however those end.
        *("setpriv", "--pdeathsig", "KILL", str(CHROMIUM), *ARGUMENTS, *_QUIET),
        *(f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(_START_SECONDS):
            endpoint = await _endpoint(process.stderr)
        noise = asyncio.ensure_future(process.stderr.read())  # or a full pipe would stop it
        try:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.connect_over_cdp(
                    endpoint, no_defaults=True, timeout=_START_SECONDS * 1000
                )
                yield browser.contexts[0]
                await browser.close()
        finally:
            noise.cancel()
            await asyncio.wait({noise})
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _endpoint(lines: asyncio.StreamReader) -> str:
    told = b""
    while line := await lines.readline():
        told += line
        if found := re.search(rb"ws://\S+", line):
            return found[0].decode()
    raise AssertionError(f"Chromium did not start:\n{told[-2000:].decode(errors='replace')}")
