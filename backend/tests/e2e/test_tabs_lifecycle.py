"""Protocol 1.2 in a browser with several tabs: the one that holds the stream goes away, and no tab misses anything."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from playwright.async_api import expect

from tests.support.tabs import Desk, OpenDesk, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(120)]

A_MOMENT_SECONDS = 1.0
"""For so long the server may hold the old stream beside the new one: until the end of a connection has reached it."""


STILL_SECONDS = 30.0


@pytest.fixture
async def desk(open_desk: OpenDesk) -> Desk:
    """Three tabs of Ada."""
    desk = await open_desk()
    await desk.open(3)
    return desk


async def test_the_leader_is_closed(desk: Desk):
    leader = await desk.leader()
    async with desk.while_bob_writes():
        desk.tabs.remove(leader)
        await leader.page.close()
        await desk.leader()
    assert_one_stream(desk)


async def test_the_leader_crashes(desk: Desk):
    leader = await desk.leader()
    desk.watch.expects("the page crashed")
    async with desk.while_bob_writes():
        desk.tabs.remove(leader)
        crash = asyncio.ensure_future(leader.page.goto("chrome://crash"))
        await leader.page.wait_for_event("crash")
        await asyncio.wait({crash})
        assert crash.exception() is not None
        await desk.leader()
    assert_one_stream(desk)


async def test_the_leader_is_reloaded(desk: Desk):
    leader = await desk.leader()
    async with desk.while_bob_writes():
        await leader.page.reload()
        await leader.is_live()
        assert await desk.leader() is not leader
    assert_one_stream(desk)


async def test_the_leader_is_frozen_and_thaws(desk: Desk):
    leader = await desk.leader()
    session = await desk.context.new_cdp_session(leader.page)
    async with desk.while_bob_writes():
        await session.send("Page.setWebLifecycleState", {"state": "frozen"})
        await desk.led_by_another(leader)
        await desk.said(20)
        await session.send("Page.setWebLifecycleState", {"state": "active"})
        await leader.is_live()
        assert await leader.page.evaluate("tab.wasFrozen"), "it was not frozen: the test has shown nothing"
        assert not await leader.leads()
    assert_one_stream(desk)


async def test_the_leader_is_left_and_comes_back_as_it_was(desk: Desk):
    leader = await desk.leader()
    async with desk.while_bob_writes():
        await leader.page.goto(f"{desk.app.origin()}/elsewhere")
        await desk.led_by_another(leader)
        await desk.said(20)
        await leader.page.go_back(wait_until="commit")
        await expect(leader.page.locator("output")).to_have_text("open")
        assert await leader.page.evaluate("tab.wasKept"), "it was loaded anew: the test has shown nothing"
    assert_one_stream(desk)


async def test_the_leader_hangs_and_stands_down_when_it_comes_back(desk: Desk, record_property):
    leader = await desk.leader()
    desk.watch.expects("Synchronous XMLHttpRequest")  # it blocks the page: so it is meant
    async with desk.while_bob_writes(pause_seconds=0.1):
        since = time.monotonic()
        hang = asyncio.ensure_future(leader.hang())
        new = await desk.led_by_another(leader, seconds=40)
        await new.is_live()
        # How long is said and not judged: the machine may be busy.
        record_property("seconds_without_a_leader", time.monotonic() - since)
        desk.app.goes_on.set()
        await hang
        await eventually(lambda: desk.streams.now == 1, seconds=10)
        assert not await leader.leads()
    assert desk.streams.now == 1


async def test_the_whole_browser_stands_still_and_nobody_takes_over(desk: Desk):
    """A laptop that sleeps: every tab has heard nothing for long, and none may take that for a dead leader."""
    leader = await desk.leader()
    assert desk.context.browser is not None
    session = await desk.context.browser.new_browser_cdp_session()
    processes = [each["id"] for each in (await session.send("SystemInfo.getProcessInfo"))["processInfo"]]
    async with desk.while_bob_writes(pause_seconds=0.5):
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            await asyncio.sleep(STILL_SECONDS)
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)
        await leader.is_live()
        await desk.said(20)
        assert await leader.leads()
    assert_one_stream(desk)


def assert_one_stream(desk: Desk) -> None:
    assert desk.streams.now == 1
    assert desk.streams.longest_above(1) < A_MOMENT_SECONDS
