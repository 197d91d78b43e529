"""Pictures of the demo chat for the documents: `make screenshots` writes them into docs/images/.

A real server with a database of its own, a scene played through the HTTP API, and Chromium.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from playwright.async_api import Browser, Page, async_playwright, expect

from app.db.migrate import migrate
from app.embedded import start_postgres, start_valkey
from tests.scene import ME, Scene
from tests.support.browser import ARGUMENTS, CHROMIUM, PATIENCE_MS
from tests.support.servers import Server

IMAGES: Final = Path(__file__).parents[2] / "docs/images"
DESK: Final = {"viewport": {"width": 1440, "height": 900}}
PHONE: Final = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 2, "has_touch": True}
BUDGET_SECONDS: Final = 180
PACKAGES: Final = "apt install fonts-inter pngquant"
_HOUR_SHOWN = 10

# The interface font of the machine, whichever it is, would make every picture another.
_FONT = """addEventListener("DOMContentLoaded", () => document.documentElement.style.setProperty(
    "--font", '"Colour emoji", Inter, "Noto Color Emoji", sans-serif'))"""
Scheme = Literal["light", "dark"]


async def take_all(folder: Path) -> None:
    async with scene() as played, browser() as chromium:
        camera = Camera(chromium, played, folder)
        await camera.group_on_a_desk()
        await camera.list_on_a_phone()
        await camera.direct_on_a_phone()
        await camera.cut_wire()


@dataclass
class Camera:
    browser: Browser
    scene: Scene
    folder: Path

    async def group_on_a_desk(self) -> None:
        async with self.page(DESK) as page:
            await self.open(page, "Launch week")
            await self.scene.types(self.scene.conversations["Launch week"], "ben")
            await self.scene.types(self.scene.conversations["jbrandt"], "jbrandt")
            await expect(page.locator(".composer .typing")).to_have_text("Ben is typing")
            await self.shoot(page, "group")

    async def list_on_a_phone(self) -> None:
        async with self.page(PHONE) as page:
            await self.shoot(page, "list", ("light",))

    async def direct_on_a_phone(self) -> None:
        async with self.page(PHONE) as page:
            await self.open(page, "Ben Okafor")
            await self.shoot(page, "direct", ("dark",))

    async def cut_wire(self) -> None:
        async with self.page(DESK, ME, "ben") as page:
            mine, theirs = page.locator(".pane").nth(0), page.locator(".pane").nth(1)
            await mine.locator(".conversation-item", has_text="Ben Okafor").click()
            await theirs.locator(".conversation-item", has_text="Nora Lindqvist").click()
            await expect(mine.locator(".state")).to_have_text("Live")
            await mine.get_by_role("switch", name="Wire").click()
            for pane, words in ((theirs, "Doors open in ten minutes."), (theirs, "Are you on the train?")):
                await write(pane, words)
            for words in ("In a tunnel, no network.", "I come straight to the stage."):
                await write(mine, words)
            await expect(mine.locator(".state")).to_contain_text("2")
            await self.shoot(page, "cut")
            await mine.get_by_role("switch", name="Wire").click()
            await expect(mine.locator(".notice")).to_contain_text("2 messages came meanwhile")
            await expect(mine.locator(".state")).to_have_text("Live")
            await expect(theirs.locator(".bubble-text", has_text="straight to the stage").last).to_be_visible()
            await self.shoot(page, "back")

    @asynccontextmanager
    async def page(self, screen: dict, *people: str) -> AsyncIterator[Page]:
        context = await self.browser.new_context(
            **screen,
            locale="en-GB",
            timezone_id=morning(),
            reduced_motion="reduce",
        )
        context.set_default_timeout(PATIENCE_MS)
        try:
            if not people:  # the same is unread in every picture
                await context.route("**/read", lambda route: route.abort())
            await context.add_init_script(_FONT)
            page = await context.new_page()
            await page.goto(f"{self.scene.server.url}/#{','.join(people or (ME,))}")
            await expect(page.locator(".conversation-item").first).to_be_visible()
            yield page
        finally:
            await context.close()

    async def open(self, page: Page, title: str) -> None:
        await page.locator(".conversation-item", has_text=title).first.click()
        await expect(page.locator("[role=log] article").last).to_be_visible()

    async def shoot(self, page: Page, name: str, schemes: tuple[Scheme, ...] = ("light", "dark")) -> None:
        self.folder.mkdir(exist_ok=True)
        for scheme in schemes:
            await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            await page.wait_for_timeout(400)  # what is measured, scrolled and faded in, is so by then
            file = self.folder / f"{name}-{scheme}.png"
            await page.screenshot(path=file, animations="disabled", caret="hide")
            await asyncio.to_thread(shrink, file)


def shrink(file: Path) -> None:
    """Fewer colours than anybody sees: a repository keeps every picture for ever."""
    command = ["pngquant", "--quality=85-100", "--strip", "--force", "--output", str(file), str(file)]
    subprocess.run(command, check=True, timeout=30)


async def write(pane, words: str) -> None:
    field = pane.locator(".composer textarea")
    await field.fill(words)
    await field.press("Enter")


def morning() -> str:
    """The time zone where it is ten o'clock: the same hours in every picture."""
    ahead = (_HOUR_SHOWN - datetime.now(UTC).hour + 12) % 24 - 12
    return f"Etc/GMT{-ahead:+d}"


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    folder = Path(tempfile.mkdtemp(prefix="gapless-pictures-"))
    folder.chmod(0o755)  # as root the database runs as nobody
    postgres, valkey = start_postgres(folder / "pg"), start_valkey(folder / "valkey")
    server = Server(postgres.url, valkey.url, folder / "server.log", {"APP_ENV": "development"})
    try:
        await asyncio.to_thread(migrate, postgres.url)
        await server.start()
        played = await Scene(server).play()
        await played.date_back(postgres.url)
        yield played
    finally:
        await server.close()
        valkey.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield chromium
        finally:
            await chromium.close()


async def _main(folder: Path) -> None:
    missing = [str(needed) for needed in (CHROMIUM, "pngquant") if shutil.which(needed) is None]
    if missing:
        sys.exit(f"make screenshots: not installed: {', '.join(missing)}. On Debian: make test-deps, and {PACKAGES}")
    async with asyncio.timeout(BUDGET_SECONDS):
        await take_all(folder)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES))
