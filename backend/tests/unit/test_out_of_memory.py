"""A process that finds no memory ends: what was not called back once may never be again."""

from __future__ import annotations

import asyncio

import pytest

from app import observability
from app.exits import Exit
from app.server import _on_failed_callback


@pytest.fixture
def ends(monkeypatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    return codes


def test_in_a_request(ends):
    observability.log_defect("unexpected_error", MemoryError())
    assert ends == [Exit.FAILED]


async def test_in_a_callback_of_the_loop(ends):
    _on_failed_callback(asyncio.get_running_loop(), {"message": "", "exception": MemoryError()})
    assert ends == [Exit.FAILED]


async def test_no_other_defect_ends_it(ends, caplog):
    observability.log_defect("unexpected_error", RuntimeError())
    _on_failed_callback(asyncio.get_running_loop(), {"message": "a callback failed", "exception": RuntimeError()})
    assert ends == []
    assert "a callback failed" in caplog.text
