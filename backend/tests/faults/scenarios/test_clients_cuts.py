"""Connections that end at any byte, and clients that come back all the time."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from tests.faults.kit.scene import TAIL_SECONDS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

LETTERS = "aé€😀"  # of 1, 2, 3 and 4 bytes
MOST_BYTES = 3000  # of a response before its cut: its head, its opening, and one or a few messages
ANSWERS_CUT_SHARE = 0.1  # of the answers to sends; the others are needed for messages to come
RECONNECT_SECONDS = 0.2
REACHED_SHARE = 0.5  # of what a row says, on a machine that has other work


@pytest.mark.scenario(
    "F53",
    "Every response is cut at another byte, also within a character",
    "no event in part, none lost, none twice",
    gate=True,
    seconds=50,
)
async def test_cut_at_any_byte(scene):
    """Protocol 3.1, 4.2, 5.1, 2.4: streams and answers to sends alike; cursors move with whole events only."""
    cluster = await scene.start(link_clients=True)
    cuts = int(scene.scale.pick(gate=400, whole=10_000))
    within_seconds = scene.scale.pick(gate=8, whole=120)  # on a slow machine there are fewer

    async def faults(_run) -> None:
        with scene.fault("every response is cut"):
            for link in cluster.client_links:
                link.only = lambda pair: pair.is_stream or scene.rng.random() < ANSWERS_CUT_SHARE
                link.cut_each_after(_every_offset(scene.rng))
                link.cut()
            try:
                ends_at = time.monotonic() + within_seconds
                while sum(len(link.spent) for link in cluster.client_links) < cuts and time.monotonic() < ends_at:
                    await asyncio.sleep(0.1)
            finally:
                for link in cluster.client_links:
                    link.heal()

    shape = {"users": 40, "groups": 8, "largest_group": 8, "direct_pairs": 30, "letters": LETTERS}
    await scene.play(faults, hurry=50, sends_per_second=scene.scale.pick(gate=60, whole=80), **shape)
    ends = [last for link in cluster.client_links for last in link.spent]
    scene.notes["cuts"] = len(ends)
    scene.notes["of them within a character"] = within = sum(_ends_within_a_character(last) for last in ends)
    scene.notes["of them between id and blank line"] = unfinished = sum(_ends_behind_an_id(last) for last in ends)
    assert len(ends) > 0.8 * cuts
    assert within > 0, "none was cut within a character"
    assert unfinished > 0, "none was cut behind an id"


def _every_offset(rng: random.Random):
    """Each number of bytes in turn, in an order of the seed's."""
    order: list[int] = []

    def budget() -> int:
        if not order:
            order.extend(range(1, MOST_BYTES))
            rng.shuffle(order)
        return order.pop()

    return budget


def _ends_within_a_character(data: bytes) -> bool:
    for length in (1, 2, 3):
        first = data[-length] if len(data) >= length else 0
        if first >= 0xC0:
            return length < (2 if first < 0xE0 else 3 if first < 0xF0 else 4)
        if first < 0x80:
            return False
    return False


def _ends_behind_an_id(data: bytes) -> bool:
    return b"\nid: " in b"\n" + data.rpartition(b"\n\n")[2]


@pytest.mark.scenario(
    "F56",
    "A user gets 500 messages a second for a minute, and all his clients reconnect every 200 ms",
    "catch-up meets live messages: no gap, none twice",
    gate=True,
    seconds=75,
    pictured=True,
)
async def test_catching_up_against_live_sends(scene):
    """Protocol 5.1, 5.4: subscribed first, then read; what is in both comes once."""
    await scene.start()
    seconds, reconnects = scene.scale.pick(gate=2.5, whole=60), 0
    rate = scene.scale.pick(gate=150, whole=500)

    async def faults(run) -> None:
        nonlocal seconds, reconnects
        began_at = time.monotonic()
        with scene.fault("clients reconnect every 200 ms"):
            while (now := time.monotonic() - began_at) < seconds:
                device = run.devices[reconnects % len(run.devices)]
                device.reconnect()
                reconnects += 1
                await asyncio.sleep(max(0, reconnects * RECONNECT_SECONDS / len(run.devices) - now))
        seconds = time.monotonic() - began_at

    hot = {"users": 2, "groups": 0, "direct_pairs": 1, "devices_per_user": 2}
    played = await scene.play(faults, sends_per_second=rate, **hot)
    devices, summary = len(played.history.devices), played.summary
    scene.notes["reconnects"] = reconnects
    scene.notes["streams opened"] = opened = summary.streams - devices
    scene.notes["sends a second"] = round(summary.stored / (seconds + TAIL_SECONDS))
    assert reconnects > devices * seconds / RECONNECT_SECONDS * REACHED_SHARE
    assert opened > reconnects * REACHED_SHARE
    assert summary.stored > rate * seconds * REACHED_SHARE
