"""What is written for people never holds up the process."""

from __future__ import annotations

import logging
import os
import time

import pytest

from app import log_writer
from app.log_writer import LogWriter


def line(text: str) -> logging.LogRecord:
    return logging.LogRecord("name", logging.INFO, "path", 1, text, None, None)


def test_lines_are_written_in_order_and_flush_waits_for_them():
    reader, writer = os.pipe()
    lost: list[None] = []
    log = LogWriter(writer, on_lost=lambda: lost.append(None))
    for number in range(100):
        log.emit(line(f"{number} \N{SNOWMAN} \udc80"))
    log.flush()
    text = os.read(reader, 65536).decode()
    assert [row.split()[0] for row in text.splitlines()] == [str(number) for number in range(100)]
    assert "\N{SNOWMAN} \\udc80" in text
    assert lost == []
    os.close(reader)
    os.close(writer)


def test_a_full_disk_costs_lines_which_are_counted():
    lost: list[None] = []
    full = os.open("/dev/full", os.O_WRONLY)
    log = LogWriter(full, on_lost=lambda: lost.append(None))
    for _ in range(3):
        log.emit(line("there is no room for this"))
    log.flush()
    assert len(lost) == 3
    os.close(full)


def test_a_reader_that_stops_holds_up_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(log_writer, "MAX_WAITING_LINES", 10)
    reader, writer = os.pipe()
    lost: list[None] = []
    log = LogWriter(writer, on_lost=lambda: lost.append(None))
    started = time.monotonic()
    for _ in range(20):
        log.emit(line("x" * 65_536))  # the first fills the pipe
    assert time.monotonic() - started < 1
    assert len(lost) >= 9
    before = len(lost)
    os.close(reader)  # ends the wait of the thread: what it held is lost as well
    log.flush()
    assert len(lost) > before
    os.close(writer)


def test_a_line_that_cannot_be_written_down_is_no_error():
    lost: list[None] = []
    log = LogWriter(2, on_lost=lambda: lost.append(None))
    log.emit(logging.LogRecord("name", logging.INFO, "path", 1, "%d", ("no number",), None))
    assert len(lost) == 1
