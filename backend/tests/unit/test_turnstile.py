"""Who passes in which turn of the event loop."""

from __future__ import annotations

import asyncio

from app.services.messaging.turnstile import Turnstile


async def _turns_of(turnstile: Turnstile, count: int) -> list[int]:
    """Come `count` times at once; give the turn of the loop in which each has passed, in order of coming."""
    turn = 0
    passed: dict[int, int] = {}

    async def come(number: int) -> None:
        await turnstile.passed()
        passed[number] = turn

    coming = [asyncio.create_task(come(number)) for number in range(count)]
    async with asyncio.timeout(5):
        while len(passed) < count:
            await asyncio.sleep(0)
            turn += 1
    await asyncio.gather(*coming)
    assert list(passed) == sorted(passed)  # first come, first served
    return [passed[number] for number in range(count)]


async def test_a_few_pass_in_each_turn_and_those_who_came_first_are_first():
    turns = await _turns_of(Turnstile(3), 20)
    assert max(turns.count(turn) for turn in set(turns)) == 3
    assert len(set(turns)) == 7


async def test_who_comes_alone_passes_at_once_also_after_a_crowd():
    turnstile = Turnstile(3)
    await _turns_of(turnstile, 20)
    for _ in range(10):
        alone = turnstile.passed()
        await asyncio.sleep(0)
        try:
            alone.send(None)
        except StopIteration:
            continue
        raise AssertionError("it had to wait")


async def test_who_gives_up_or_has_gone_takes_no_place():
    turnstile = Turnstile(1)
    waiting = [asyncio.create_task(turnstile.passed()) for _ in range(50)]
    gone = [asyncio.create_task(turnstile.passed(lambda: True)) for _ in range(50)]
    last = asyncio.create_task(turnstile.passed())
    await asyncio.sleep(0)
    for task in waiting[2:]:
        task.cancel()
    for _ in range(6):
        await asyncio.sleep(0)
    assert all(task.done() for task in (*waiting, *gone, last))
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await _turns_of(turnstile, 5)
