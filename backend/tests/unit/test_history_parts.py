"""What the fault runs are made of: the reader of the wire, the plan, and what an answer means."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.history.load import outcome_of
from tests.history.plan import Shape, make_plan
from tests.history.records import Outcome
from tests.history.sse import EventStreamParser, ResponseParser

WIRE = (
    b"retry: 1500\n\nid: e.4\n\nevent: connected\ndata: {}\n\n:7\nevent: message_edited\ndata: 1\n\n"
    b"id: e.5\nevent: new_message\ndata: \xc3\xa9\ndata: b\n\n\n: only a comment\n\nid\ndata\n\nretry: 1x\ndata:  c\n\n"
    b"id: e.6\n"
)
BLOCKS = [
    ("", None, None, 1500),
    ("", None, "e.4", None),
    ("connected", b"{}", None, None),
    ("message_edited", b"1", None, None),
    ("new_message", "é\nb".encode(), "e.5", None),
    ("", None, None, None),
    ("", b"", "", None),
    ("", b" c", None, None),
]


@given(ends=st.sampled_from([b"\n", b"\r\n", b"\r"]), cuts=st.lists(st.integers(0, 400)), bom=st.booleans())
def test_a_stream_is_read_the_same_however_it_is_cut(ends: bytes, cuts: list[int], bom: bool):
    wire = (b"\xef\xbb\xbf" if bom else b"") + WIRE.replace(b"\n", ends)
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in pieces(wire, cuts) if part)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    response, parser = ResponseParser(), EventStreamParser()
    found = []
    for piece in pieces(head + chunked + b"0\r\n\r\n", [cut * 2 for cut in cuts]):
        found += parser.feed(response.feed(piece))
    assert found == BLOCKS
    assert (response.status, response.is_complete) == (200, True)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_a_plan_can_be_made_again_from_its_seed():
    shape = Shape(users=30, groups=6, largest_group=20, sends_per_second=50, changes_share=0.2, removals_per_second=1)
    plan = make_plan(shape, 11)
    assert plan == make_plan(shape, 11)
    assert plan != make_plan(shape, 12)
    sizes = [len(talk.members) for talk in plan.talks if not talk.is_direct]
    assert (min(sizes), max(sizes)) == (2, 20)


@pytest.mark.parametrize(
    "status, outcome",
    [(201, "acknowledged"), (200, "acknowledged"), (404, "refused"), (409, "refused"), (429, "unknown"),
     (500, "unknown"), (503, "unknown"), (0, "unknown")],
)  # fmt: skip
def test_only_an_answer_settles_the_outcome_of_a_send(status: int, outcome: str):
    assert outcome_of(status) == Outcome(outcome)
