"""Order, decided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.messaging.cursor import Cursor, Verdict, judge, parse_cursor


@pytest.mark.parametrize(
    "last, number, verdict",
    [
        (7, 8, Verdict.DELIVER),
        (0, 1, Verdict.DELIVER),
        (7, 7, Verdict.DUPLICATE),
        (7, 1, Verdict.DUPLICATE),
        (7, 0, Verdict.DUPLICATE),
        (7, 9, Verdict.GAP),
        (7, 2**63 - 1, Verdict.GAP),
    ],
)
def test_only_the_next_number_is_delivered(last, number, verdict):
    """Protocol 1.2."""
    assert judge("e", last, "e", number) is verdict


def test_another_epoch_is_a_resync_whatever_the_number():
    """Protocol 6.1."""
    assert {judge("e", 7, "f", number) for number in (0, 7, 8, 9)} == {Verdict.RESYNC}


@given(st.from_regex(r"[0-9a-z]{1,12}", fullmatch=True), st.integers(0, 2**63 - 1))
def test_a_written_cursor_is_read_as_it_was(epoch, seq):
    assert parse_cursor(str(Cursor(epoch, seq))) == Cursor(epoch, seq)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a",
        "a.",
        ".1",
        "A.1",
        "a.1\n",
        "a. 1",
        "a.+1",
        "a.01",
        "a.00",
        "a.1_0",
        "a.1.1",
        "a" * 13 + ".1",
        f"a.{2**63}",
        "a.\u0661",
    ],
)
def test_what_no_server_wrote_is_not_a_cursor(text):
    """Protocol 4.5."""
    assert parse_cursor(text) is None


@given(st.text() | st.from_regex(r"[0-9a-z]{0,14}[.:]?[0-9]{0,21}", fullmatch=True))
def test_what_is_read_is_what_would_be_written(text):
    assert parse_cursor(text) is None or str(parse_cursor(text)) == text
