"""Writes log lines beside the event loop: a disk that is full or a reader that stops holds up nobody else."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

MAX_WAITING_LINES: Final = 10_000  # a few MB; past it lines are lost, and counted
FLUSH_SECONDS: Final = 1.0  # for the last lines of a process


class LogWriter(logging.Handler):
    """Hands lines to a thread, which waits for whoever must be waited for."""

    def __init__(self, descriptor: int, *, on_lost: Callable[[], None]) -> None:
        """Write to `descriptor`; call `on_lost`, from any thread, for each line that could not be written."""
        super().__init__()
        self._descriptor = descriptor
        self._on_lost = on_lost
        # Not a Queue: a finalizer may log while a line is being queued, and would wait for itself.
        self._lines: SimpleQueue[str | threading.Event] = SimpleQueue()
        threading.Thread(target=self._write_for_ever, name="log", daemon=True).start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Format a line here, where its context is, and queue it."""
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001 - a record that is no good is no reason to fail a request
            self._on_lost()
            return
        if self._lines.qsize() < MAX_WAITING_LINES:
            self._lines.put(line)
        else:
            self._on_lost()

    def flush(self) -> None:
        """Wait until everything so far is written, for a second at most."""
        is_written = threading.Event()
        self._lines.put(is_written)
        is_written.wait(FLUSH_SECONDS)

    def _write_for_ever(self) -> None:
        while True:
            line = self._lines.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            rest = line.encode(errors="backslashreplace")
            try:
                while rest:  # unbuffered: what could not be written is not tried again with the next line
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:  # full, or nobody reads it any more
                self._on_lost()
