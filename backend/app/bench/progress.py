"""What a person sees while it runs: a moving line on a terminal, plain lines elsewhere. On stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.status import Status

PLAIN_SECONDS: Final = 2.0  # between two lines about the same step, where lines cannot move


class Progress:
    """A context manager; everything it shows goes away or is one line of a log."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Show nothing at all when `quiet`."""
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._status: Status | None = None
        self._profile = ""
        self._last_line_at = 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.console.quiet:
            self._status = self.console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def profile(self, name: str) -> None:
        """Begin another profile."""
        self._profile = name
        self._last_line_at = 0.0

    def step(self, text: str) -> None:
        """Say what happens now; may be called many times a second."""
        line = f"{self._profile}: {text}" if self._profile else text
        if self._status is not None:
            self._status.update(f"[bold]{self._profile}[/] {text}")
        elif not self.console.quiet and time.monotonic() - self._last_line_at > PLAIN_SECONDS:
            self._last_line_at = time.monotonic()
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - the plain form of a progress line

    def say(self, text: str) -> None:
        """Leave a line that stays."""
        self.console.print(text)
