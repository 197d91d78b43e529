"""What the load client counts, and what it must find: this is where a loss would go unnoticed."""

from __future__ import annotations

import random
import re

import pytest

from app import events
from app.bench.counting import GAPLESS, Counter, Rules, Tally

EPOCH = "abcdefghijkl"


def message(seq: int, content: str = "hello") -> bytes:
    return events.message_frame(EPOCH, seq, events.change_body("new_message", {"content": content}))


def chunk(frame: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(frame), frame)


def opening(seq: int = 0) -> bytes:
    frames = (events.retry_block(2000), events.id_block(EPOCH, seq), events.connected_frame({"user_id": "ada"}))
    return b"\n" + b"".join(map(chunk, frames))


def opened(seq: int = 0) -> Counter:
    counter = Counter(GAPLESS, Tally())
    counter.feed(opening(seq))
    assert counter.is_open
    assert counter.last == seq
    return counter


def wire(*seqs: int) -> bytes:
    return b"".join(chunk(message(seq)) for seq in seqs)


def faults(counter: Counter) -> dict[str, int]:
    return {name: count for name, count in counter.tally.faults().items() if count}


def test_what_comes_in_order_is_counted_and_nothing_else():
    counter = opened()
    counter.feed(wire(1))
    counter.feed(wire(2, 3, 4))
    counter.feed(chunk(events.ephemeral_frame("typing_status", {"is_typing": True})))
    assert (counter.received, counter.last, counter.epoch) == (4, 4, EPOCH.encode())
    assert faults(counter) == {}


@pytest.mark.parametrize(
    "seqs,expected",
    [
        ((1, 2, 4, 5), {"lost": 1}),
        ((1, 5), {"lost": 3}),
        ((1, 2, 2, 3), {"doubled": 1}),
        ((1, 3, 2, 4), {"out_of_order": 1}),  # the right ends and the right count
        ((1, 3, 3, 4), {"lost": 1, "doubled": 1}),  # the same, and a loss
        ((2, 1), {"lost": 1, "doubled": 0, "out_of_order": 0}),
    ],
    ids=str,
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_loss_a_double_and_a_wrong_order_are_found(seqs, expected, at_once):
    counter = opened()
    if seqs == (2, 1):
        expected = {"out_of_order": 1}
    if at_once:
        counter.feed(wire(*seqs))
    else:
        for seq in seqs:
            counter.feed(wire(seq))
    assert faults(counter) == expected


def test_events_in_pieces_of_any_size_are_the_same_events():
    frames = [*range(1, 60)]
    data = wire(*frames[:30]) + chunk(events.heartbeat_frame(_now(), 30)) + wire(*frames[30:])
    for seed in range(50):
        rng = random.Random(seed)
        counter = Counter(GAPLESS, Tally())
        rest = opening() + data
        while rest:
            size = rng.choice((1, 2, 3, 50, 299, 5000))
            counter.feed(rest[:size])
            rest = rest[size:]
        assert (counter.received, counter.tally.heartbeats, counter.last) == (59, 1, 59)
        assert faults(counter) == {}


def test_a_heartbeat_among_messages_does_not_hide_a_loss():
    counter = opened()
    counter.feed(wire(1) + chunk(events.heartbeat_frame(_now(), 1)) + wire(3))
    assert faults(counter) == {"lost": 1}
    assert counter.tally.heartbeats == 1


def test_a_resync_is_a_fault_and_the_stream_goes_on_from_its_cursor():
    counter = opened(5)
    resync = events.resync_frame("retention", "all", f"{EPOCH}.9")
    counter.feed(chunk(resync) + chunk(events.id_block(EPOCH, 9)) + wire(10))
    assert faults(counter) == {"resyncs": 1}
    assert counter.last == 10


def test_a_resync_of_changes_moves_no_cursor_and_hides_no_hole():
    counter = opened()
    counter.feed(wire(1) + chunk(events.resync_frame("redis_reconnected", "changes", f"{EPOCH}.1")) + wire(3))
    assert counter.last == 3
    assert faults(counter) == {"resyncs": 1, "lost": 1}


def test_a_stream_that_comes_back_must_go_on_where_it_was():
    counter = opened()
    counter.feed(wire(1, 2, 3))
    counter.restart()
    counter.feed(opening(3) + wire(4))
    assert faults(counter) == {}
    counter.restart()
    counter.feed(opening(5) + wire(6))
    assert faults(counter) == {"lost": 1}  # it should have begun with 5

    counter = opened()
    counter.feed(wire(1, 2, 3, 4))
    counter.restart()
    counter.feed(opening(6) + wire(7))  # 5 and 6 are missing, and the server does not say so
    assert faults(counter) == {"lost": 2}
    counter.restart()
    counter.feed(opening(5) + wire(6, 7, 8))
    assert faults(counter) == {"lost": 1, "out_of_order": 1, "doubled": 1}


def test_the_place_of_a_message_that_is_not_shown_is_no_loss():
    """What was said in a conversation that the user has left is replayed as a cursor alone."""
    counter = opened()
    counter.feed(wire(1) + chunk(events.id_block(EPOCH, 2)) + wire(3))
    assert faults(counter) == {}
    assert (counter.received, counter.last) == (2, 3)


def test_a_text_that_looks_like_an_event_is_none():
    counter = opened()
    content = "\nid: abcdefghijkl.9\nevent: new_message\n"
    counter.feed(chunk(message(1, content)))
    assert (counter.received, counter.last) == (1, 1)
    assert faults(counter) == {}


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_other_servers_are_counted_by_their_own_marks(size):
    """A body that is not chunked, line ends of another kind, numbers in the data."""
    rules = Rules(b'"seq":', numbers=re.compile(rb'"seq":(\d+)\}'), event_end=b"\r\n\r\n")
    counter = Counter(rules, Tally())
    data = b"\n" + b"".join(b'data: {"seq":%d}\r\n\r\n' % n for n in (7, 8, 9, 11))
    for start in range(0, len(data), size):
        counter.feed(data[start : start + size])
    assert counter.received == 4
    assert faults(counter) == {"lost": 1}
    only_counted = Counter(Rules(b"\ndata: "), Tally())
    only_counted.feed(b"\n" + b"data: x\n\n" * 5)
    assert only_counted.received == 5


def _now():
    from datetime import UTC, datetime

    return datetime.now(UTC)
