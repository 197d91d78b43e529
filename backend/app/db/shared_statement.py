"""Many askers, one statement: those who ask while one runs share the next, so a storm costs few of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from app import deadline
from app.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Q = TypeVar("Q")
A = TypeVar("A")

MAX_ASKERS: Final = 50  # of one statement
MAX_ASKING: Final = 20_000


class SharedStatement(Generic[Q, A]):
    """Answers questions of one kind, up to 50 with one statement. A lone question is asked at once."""

    def __init__(
        self, answer_all: Callable[[list[Q]], Awaitable[Sequence[A]]], *, max_statements: int, seconds: float
    ) -> None:
        """Ask `answer_all`, which gives answers in the order of its questions, `max_statements` times at once.

        Who has waited for `seconds` is told that there is no answer.
        """
        self._answer_all = answer_all
        self._max_statements = max_statements
        self._seconds = seconds
        self._asks: list[tuple[Q, asyncio.Future[A]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """Give the answer to one question.

        Raises UnavailableError when none came in time, or too many are asking, and what the statement raises.
        """
        if len(self._asks) >= MAX_ASKING:
            raise UnavailableError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        self._asks.append((question, future))
        # One turn of the loop later: those who ask in the same turn share the statement.
        loop.call_soon(self._start)
        expiry = loop.call_later(self._seconds, _give_up, future)
        try:
            return await future
        finally:
            expiry.cancel()

    def _start(self) -> None:
        while self._asks and len(self._running) < self._max_statements:
            batch, self._asks = self._asks[:MAX_ASKERS], self._asks[MAX_ASKERS:]
            task = asyncio.get_running_loop().create_task(self._answer(batch), context=deadline.of_nobody())
            self._running.add(task)
            task.add_done_callback(self._on_answered)

    def _on_answered(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    async def _answer(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        batch = [(question, future) for question, future in batch if not future.done()]  # who has given up is left out
        if not batch:
            return
        try:
            answers = await self._answer_all([question for question, _ in batch])
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            for _, future in batch:
                _fail(future, error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def _give_up(future: asyncio.Future[A]) -> None:
    _fail(future, UnavailableError())


def _fail(future: asyncio.Future[A], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever waits may hang up at this moment: not "never retrieved"
