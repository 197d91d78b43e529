"""Many askers, one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from app.db.shared_statement import MAX_ASKERS, SharedStatement
from app.errors import UnavailableError


class Statement:
    """Doubles numbers when it is told to go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.goes_on = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, questions: list[int]) -> Sequence[int]:
        self.batches.append(questions)
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return [2 * question for question in questions]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_lone_question_is_asked_at_once():
    statement = Statement()
    statement.goes_on.set()
    assert await SharedStatement(statement, max_statements=1, seconds=5).ask(21) == 42


async def test_those_who_ask_while_one_runs_share_the_next():
    statement = Statement()
    shared = SharedStatement(statement, max_statements=2, seconds=5)
    asked = []
    for number in range(3):
        asked.append(asyncio.create_task(shared.ask(number)))
        await turns()
    later = [asyncio.create_task(shared.ask(number)) for number in range(3, 3 + MAX_ASKERS)]
    await turns()
    assert statement.batches == [[0], [1]], "more than two at once"
    statement.goes_on.set()
    assert await asyncio.gather(*asked, *later) == [2 * number for number in range(3 + MAX_ASKERS)]
    assert [len(batch) for batch in statement.batches] == [1, 1, MAX_ASKERS, 1]


async def test_everybody_hears_of_an_error_and_the_next_are_asked_again():
    statement = Statement()
    statement.error = UnavailableError()
    statement.goes_on.set()
    shared = SharedStatement(statement, max_statements=1, seconds=5)
    outcomes = await asyncio.gather(*(shared.ask(number) for number in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 3
    statement.error = None
    assert await shared.ask(1) == 2


async def test_who_has_waited_for_long_is_told_so_and_not_read_for():
    statement = Statement()
    shared = SharedStatement(statement, max_statements=1, seconds=0.05)
    running = asyncio.create_task(shared.ask(1))
    await turns()
    with pytest.raises(UnavailableError):
        await shared.ask(2)
    with pytest.raises(UnavailableError):
        await running
    statement.goes_on.set()
    assert await shared.ask(3) == 6
    assert statement.batches == [[1], [3]]


async def test_who_hangs_up_takes_the_answer_from_nobody():
    statement = Statement()
    shared = SharedStatement(statement, max_statements=1, seconds=5)
    gone, staying = (asyncio.create_task(shared.ask(number)) for number in (1, 2))
    await turns()
    gone.cancel()
    statement.goes_on.set()
    assert await staying == 4
