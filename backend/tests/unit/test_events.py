"""Frames: what is written can be read by anyone, and nothing else passes."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import events
from tests.support.streams import parse_block

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


def message(content: str, **fields) -> events.Message:
    values = {
        "id": uuid.uuid4(), "conversation_id": uuid.uuid4(), "seq": 1, "rev": 1,
        "sender": events.Person("ada", "Ada", None), "client_message_id": uuid.uuid4(), "content": content,
        "reply_to_id": None, "reactions": [], "created_at": NOW, "edited_at": None, "deleted_at": None,
    }  # fmt: skip
    return events.Message(**{**values, **fields})


@given(TEXT)
def test_any_text_survives_the_frame(content):
    """Protocol 3.1: exactly one event, whatever is in the text: CR, LF, U+2028, NUL."""
    frame = events.message_frame("abc", 7, events.message_body(message(content)))
    assert frame.count(b"\n\n") == 1
    block = parse_block(frame)
    assert (block.id, block.name, block.json["content"]) == ("abc.7", "new_message", content)
    parsed = events.parse_frame(frame)
    assert parsed is not None
    assert (parsed.kind, parsed.epoch, parsed.number) == ("message", "abc", 7)


def test_each_kind_is_known_by_its_first_byte():
    """Protocol 3.2, 3.3, 3.4."""
    body = events.change_body("message_edited", {"a": 1})
    change = events.parse_frame(events.change_frame(3, body))
    assert change is not None
    assert (change.kind, change.number) == ("change", 3)
    ephemeral = events.parse_frame(events.ephemeral_frame("typing_status", {"a": 1}))
    assert ephemeral is not None
    assert ephemeral.kind == "ephemeral"
    control = events.parse_frame(events.close_control(NOW))
    assert control is not None
    assert control.kind == "control"


GOOD = b'id: abc.7\nevent: new_message\ndata: {"a":1}\n\n'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n\n",
        b"hello",
        b"{}",
        b"data: x\n\n",
        GOOD[:-1],
        GOOD + b"\n",
        GOOD + GOOD,
        GOOD.replace(b"event", b"id: abc.8\nevent"),
        GOOD.replace(b"event", b"id:abc.8\nevent"),
        GOOD.replace(b"event", b"retry: 1\nevent"),
        GOOD.replace(b'"a"', b'"\r"'),
        GOOD.replace(b'"a"', b'"\0"'),
        GOOD.replace(b"abc.7", b"abc.-7"),
        GOOD.replace(b"abc.7", b"abc.7_0"),
        GOOD.replace(b"abc.7", b"abc.99999999999999999999"),
        GOOD.replace(b"abc.7", b".7"),
        GOOD.replace(b"abc.7", b"abcdefghijklm.7"),
        GOOD.replace(b"id: abc.7", b":x"),
        GOOD.replace(b"id: abc.7\n", b"id: abc.7\n\n"),
        b"event: x\nevent: y\n\n",
        GOOD.replace(b"1", b"1" * 70_000),
        b"\xff\xfe\xfd",
    ],
)
def test_what_no_publisher_wrote_is_dropped(raw):
    """Protocol 3.6."""
    assert events.parse_frame(GOOD) is not None
    assert events.parse_frame(raw) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_exception_and_never_break_a_stream(raw):
    """Protocol 3.6: what passes is one block, or a control that no client sees."""
    frame = events.parse_frame(raw)
    if frame is not None and frame.kind != "control":
        assert raw.find(b"\n\n") == len(raw) - 2


def test_the_largest_message_fits_a_frame():
    """Protocol 3.1: 40,000 bytes of text, 20 emoji, 20 users each, all of the longest."""
    user_ids = ["u" * 128] * 20
    text = events.to_json([{"emoji": "x" * 64, "count": 10_000, "user_ids": user_ids}] * 20).decode()
    largest = message(
        "\U0001f600" * 10_000,
        sender=events.Person("u" * 128, "\U0001f600" * 100, "https://" + "a" * 504),
        reactions=events.reactions_from_json(text),
        edited_at=NOW,
    )
    frame = events.message_frame("a" * 12, 2**63 - 1, events.message_body(largest))
    assert len(frame) < events.MAX_FRAME_BYTES
    assert sum(len(reaction.user_ids) for reaction in largest.reactions) == events.MAX_REACTION_USER_IDS
    assert all(reaction.count == 10_000 for reaction in largest.reactions)


def test_only_messages_that_follow_each_other_are_joined():
    """Protocol 3.1: order and bytes stay what they were; nothing is joined over a hole, a kind or an epoch."""
    body = events.change_body("new_message", {"a": 1})
    change = events.change_frame(1, events.change_body("message_edited", {"a": 1}))
    typing = events.ephemeral_frame("typing_status", {"a": 1})
    raws = [
        *(events.message_frame("abc", number, body) for number in (1, 2, 3, 5, 6)),
        change, typing,
        *(events.message_frame("abc", number, body) for number in (7, 6, 7, 8)),
        events.message_frame("xyz", 9, body),
    ]  # fmt: skip
    joined, dropped = events.read([*raws, b"garbage"], 10_000)
    assert dropped == 1
    assert [(part.first, part.last) if isinstance(part, events.Run) else part.number for part in joined] == [
        (1, 3), (5, 6), 1, 0, 7, (6, 8), 9,
    ]  # fmt: skip
    assert b"".join(part.raw for part in joined) == b"".join(raws)
    run = joined[0]
    assert run.chunk == b"%x\r\n%b\r\n" % (len(run.raw), run.raw)


def test_a_run_is_no_larger_than_it_may_be():
    """Protocol 3.1."""
    raws = [events.message_frame("abc", number, b"event: a\ndata: 1\n\n") for number in range(10, 20)]
    size = len(raws[0])
    sizes = [len(part.raw) for part in events.read(raws, 3 * size)[0]]
    assert sizes == [3 * size, 3 * size, 3 * size, size]
    assert len(events.read(raws, 1)[0]) == 10


PIECES = st.sampled_from(
    [b"id: abc.", b"id: abd.", b"1", b"2", b"3", b"\n", b"\n\n", b"\r", b"\0", b"event: new_message\n",
     b"event: other\n", b"data: ", b"data: {}\n\n", b":1\n", b"!read", b"x"]
)  # fmt: skip
DATA = st.sampled_from([b"{}", b"{}", b"{}", b"\r", b"\0", b"a\nb", b"a\n\nb", b"\n"])


@st.composite
def runs(draw):
    """Messages that follow each other; now and then one holds what no publisher writes."""
    first, count = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return [
        b"id: abc.%d\nevent: new_message\ndata: %b\n\n" % (number, draw(DATA)) for number in range(first, first + count)
    ]


@settings(max_examples=500)
@given(runs(), st.lists(PIECES, max_size=8).map(b"".join), st.sampled_from(["alone", "before", "between", "end"]))
def test_what_is_read_together_is_what_is_read_one_by_one(run, odd, place):
    """Protocol 3.6: the fast way lets nothing through that the other would not, and changes no byte."""
    match place:
        case "before":
            run.insert(0, odd)
        case "between":
            run.insert(1, odd)
        case "end":
            run[-1] += odd
    payloads = run
    for size in (10_000, 60):
        parts, dropped = events.read(payloads, size)
        apart = [frame for part in parts for frame in (part.frames if isinstance(part, events.Run) else [part])]
        one_by_one = [frame for raw in payloads if (frame := events.parse_frame(raw)) is not None]
        assert [(f.raw, f.kind, f.epoch, f.number) for f in apart] == [
            (f.raw, f.kind, f.epoch, f.number) for f in one_by_one
        ]
        assert dropped == len(payloads) - len(one_by_one)


def test_a_frame_is_chunk_encoded_once_for_all_its_receivers():
    frame = events.parse_frame(GOOD)
    assert frame is not None
    assert frame.chunk == b"%x\r\n" % len(GOOD) + GOOD + b"\r\n"
    assert frame.chunk is frame.chunk


def test_epochs_differ_by_user_and_by_database_and_fit_the_grammar():
    """Protocol 6.1."""
    epochs = {events.epoch_of(database, user) for database in ("a:1", "a:2", "b:1") for user in ("ada", "bob")}
    assert len(epochs) == 6
    assert all(len(epoch) == 12 and epoch.isalnum() and epoch.islower() | epoch.isdigit() for epoch in epochs)
