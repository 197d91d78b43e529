"""Until when the request that is being served will be answered. What belongs to no request has no deadline.

A request asks PostgreSQL several times, each within bounds of its own. After the edge has answered for it, what was
begun goes on, since it may be committed already; but nothing more is begun: the client is told 503, and may have
been told of something newer by another process meanwhile.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING

from app.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ends_at: ContextVar[float] = ContextVar("ends_at", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give what is called in this block so much time; infinity takes the deadline away."""
    token = _ends_at.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


def seconds_left() -> float:
    """Give the time that is left, infinity without a deadline. Raises UnavailableError when there is none."""
    left = _ends_at.get() - time.monotonic()
    if left <= 0:
        raise UnavailableError
    return left


def of_nobody() -> Context:
    """Give a context without a deadline, for a task that works for many requests: it would inherit the first one's."""
    return Context()
