"""Lets a few pass in each turn of the event loop, so that a storm of reconnects leaves time for senders."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Turnstile:
    """First come, first served: at most `per_turn` in one turn of the loop, the others in later ones."""

    def __init__(self, per_turn: int) -> None:
        """Let `per_turn` pass at once."""
        self._per_turn = per_turn
        self._passed = 0  # in this turn
        self._is_turning = False  # the next turn is asked for
        self._waiting: deque[tuple[asyncio.Future[None], Callable[[], bool]]] = deque()

    async def passed(self, has_gone: Callable[[], bool] = lambda: False) -> None:
        """Return when it is the caller's turn: at once, where nobody else comes. Who has gone takes no place."""
        if not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        if self._passed < self._per_turn and not self._waiting:
            self._passed += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, has_gone))
        await future

    def _turn(self) -> None:
        self._passed = 0
        while self._waiting and self._passed < self._per_turn:
            future, has_gone = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                self._passed += not has_gone()
        self._is_turning = self._passed > 0
        if self._is_turning:
            asyncio.get_running_loop().call_soon(self._turn)
