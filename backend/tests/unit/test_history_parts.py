"""What the fault runs are made of: the reader of the wire, the plan, and what an answer means."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.history.copies import Copy
from tests.history.load import outcome_of
from tests.history.plan import Read, Send, Shape, Typing, make_plan
from tests.history.recorder import Recorder, notice_of
from tests.history.records import Alteration, Call, History, Message, Notice, Outcome, ReadMark
from tests.history.rest import route_of
from tests.history.sse import Block, EventStreamParser, ResponseParser

UUID = "01a20aa5-b07f-72bd-a2cb-5046aa863fa6"
WIRE = (
    b"retry: 1500\n\nid: e.4\n\nevent: connected\ndata: {}\n\n:7\nevent: message_edited\ndata: 1\n\n"
    b"id: e.5\nevent: new_message\ndata: \xc3\xa9\ndata: b\n\n\n: only a comment\n\nid\ndata\n\nretry: 1x\ndata:  c\n\n"
    b"id: e.6\n"
)
BLOCKS = [
    Block("", None, None, 1500),
    Block("", None, "e.4", None),
    Block("connected", b"{}", None, None),
    Block("message_edited", b"1", None, None, 7),
    Block("new_message", "é\nb".encode(), "e.5", None),
    Block("", None, None, None),
    Block("", b"", "", None),
    Block("", b" c", None, None),
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


def test_a_response_of_a_known_length_ends_there_and_not_with_its_connection():
    response = ResponseParser()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 13\r\n\r\n"
    assert (response.feed(head), response.is_complete) == (b"", False)
    assert (response.feed(b"retry: 2000"), response.is_complete) == (b"retry: 2000", False)
    assert (response.feed(b"\n\n"), response.is_complete) == (b"\n\n", True)


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


def test_a_plan_says_who_reads_and_types_and_which_devices_leave():
    shape = Shape(users=30, groups=6, largest_group=20, sends_per_second=50, away_share=0.1, late_share=0.2)
    plan = make_plan(shape, 11)
    assert [absence.is_for_good for absence in plan.absences].count(True) == 6
    assert len({absence.device for absence in plan.absences}) == 18
    assert max(absence.at for absence in plan.absences) <= 5
    busy = make_plan(dataclasses.replace(shape, reads_share=0.3, typing_share=0.3), 11)
    shares = [sum(isinstance(act, kind) for act in busy.acts) / len(busy.acts) for kind in (Send, Read, Typing)]
    assert shares == pytest.approx([0.4, 0.3, 0.3], abs=0.1)


@pytest.mark.parametrize(
    "path, route",
    [
        ("/users/me", "/users/me"),
        ("/conversations?limit=100&before=x", "/conversations"),
        (f"/conversations/{UUID}/changes?after_rev=3", "/conversations/{}/changes"),
        (f"/conversations/{UUID}/members/ada", "/conversations/{}/members/{}"),
        (f"/messages/{UUID}/reactions/%F0%9F%91%8D", "/messages/{}/reactions/{}"),
    ],
)
def test_calls_are_kept_by_their_routes(path: str, route: str):
    assert route_of(path) == route


def test_calls_that_change_something_are_kept_with_what_they_asked():
    history = History(1)
    recorder = Recorder(history)
    edit, react, read = (
        Call(route, "ada", 1, 2, 200, conversation_id="c")
        for route in ("PATCH /messages/{}", "PUT /messages/{}/reactions/{}", "POST /conversations/{}/read")
    )
    recorder.called(edit, f"/messages/{UUID}", {"content": "new"}, {})
    recorder.called(react, f"/messages/{UUID}/reactions/%F0%9F%91%8D", None, None)
    recorder.called(read, "/conversations/c/read", {"seq": 9}, {"last_read_seq": 7, "unread": 0})
    recorder.called(Call("POST /messages/send", "ada", 1, 2, 201), "/messages/send", {}, {})
    assert history.calls == [edit, react, read]
    assert history.alterations == [
        Alteration("edit", UUID, "ada", "new", 1, 2, 200),
        Alteration("react", UUID, "ada", "\N{THUMBS UP SIGN}", 1, 2, 200),
    ]
    assert history.read_marks == [ReadMark("c", "ada", 9, 1, 2, 7)]


def test_what_an_event_is_about_is_kept_and_strange_data_is_about_nothing():
    receipt = {"conversation_id": "c", "user_id": "ada", "last_read_seq": 3, "read_at": ""}
    assert notice_of(receipt) == Notice("c", user="ada", seq=3)
    assert notice_of({"conversation_id": "c", "message_id": "m", "rev": 4}) == Notice("c", "m", rev=4)
    assert notice_of({"id": "c", "rev": 4, "members": [], "last_read_seq": 3}) == Notice("c", rev=4)
    assert notice_of({"server_time": "", "head": 5}) == Notice(seq=5)
    assert notice_of([1]) == Notice()


def test_a_part_told_of_a_stale_message_does_not_keep_the_whole_of_the_same_rev_away():
    """Protocol 6.5: a reaction overtakes an edit; `changes` then gives the message at the reaction's rev."""
    copy = Copy()
    old = Message("m", "c", 1, 1, "ada", "k", "old")
    copy.take(old)
    copy.take_reactions({"message_id": "m", "rev": 3, "reactions": [{"emoji": "+", "count": 1}]})
    now = dataclasses.replace(old, rev=3, content="new", is_edited=True, reactions=(("+", 1),))
    copy.take(now)
    copy.take(old)
    assert copy.messages == {"m": now}
