"""When a process that was told to end has to be gone: one time for all the waits of its end, one after another."""

from __future__ import annotations

import time
from typing import Final

EXIT_SECONDS: Final = 14.0  # protocol 7.1 promises 15: the interpreter has to end, too


class ExitDeadline:
    """Begins at the signal. Each step of the end waits for what is left of it, and no longer than is good for it."""

    def __init__(self) -> None:
        """Hold nothing up until `begin`."""
        self._at: float | None = None

    def begin(self) -> None:
        """Start to count, once; also from a signal handler."""
        if self._at is None:
            self._at = time.monotonic() + EXIT_SECONDS

    def left(self, at_most_seconds: float, *, spare_seconds: float = 0.0) -> float:
        """How long a step may wait, so that those after it have `spare_seconds`; 0 when it is too late."""
        if self._at is None:
            return at_most_seconds
        return max(0.0, min(at_most_seconds, self._at - spare_seconds - time.monotonic()))
