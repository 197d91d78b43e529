"""The one time that all waits of a process's end share."""

from __future__ import annotations

import time

import pytest

from app.exit_deadline import EXIT_SECONDS, ExitDeadline


def test_each_wait_has_what_is_left_and_no_more_than_is_good_for_it(monkeypatch):
    """Protocol 7.1: however long the waits before took."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    deadline = ExitDeadline()
    assert deadline.left(5, spare_seconds=100) == 5  # nothing has been told to end
    deadline.begin()
    now += EXIT_SECONDS - 3
    deadline.begin()  # a second signal gives no more time
    assert deadline.left(1) == 1
    assert deadline.left(5) == pytest.approx(3)
    assert deadline.left(5, spare_seconds=2) == pytest.approx(1)
    now += 10
    assert deadline.left(5) == 0
