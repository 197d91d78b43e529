"""The checker of the fault runs: what is wrong it names, what is right it leaves alone."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tests.history.checker import check
from tests.history.findings import Finding, Kind
from tests.history.ideal import IdealWorld, ideal_history
from tests.history.records import Event, Loaded, Membership, Outcome
from tests.history.sabotage import NAMES, SABOTAGE
from tests.history.sabotage_messages import Sabotage, hand_overs, replace_event
from tests.history.summary import delays, describe, summarize

# What breaks more than one promise at once.
MANIFOLD = {
    "drop_from_store", "exchange", "jump", "leak_change", "lose", "lose_page", "never_send",
    "read_less_than_sent", "react_unasked", "store_twice", "swap", "take_back_delete", "turn_round", "type_unasked",
}  # fmt: skip

# --- What is right, and what is wrong at random ------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(0, 40), users=st.integers(2, 5), devices=st.integers(1, 3))
def test_a_history_without_a_fault_is_left_alone(seed: int, steps: int, users: int, devices: int):
    assert check(ideal_history(seed, steps=steps, users=users, devices=devices)) == []


@pytest.mark.parametrize("kind, sabotage", SABOTAGE, ids=NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(12, 40))
def test_any_sabotage_of_any_history_is_found_where_it_was_done(kind: Kind, sabotage: Sabotage, seed: int, steps: int):
    history = ideal_history(seed, steps=steps)
    try:
        named = sabotage(history, random.Random(seed))
    except IndexError:  # this history has no place for it
        reject()
    found = check(history)
    assert any(one.kind is kind and named in str(one) for one in found), found
    if sabotage.__name__ not in MANIFOLD:
        assert len(found) == 1, found


# --- One anomaly of each kind, by hand: that finding, and no other -----------------------------------


def small() -> IdealWorld:
    """Three users with a device each; two groups: users 0 and 1, users 1 and 2."""
    return IdealWorld(7, users=3, devices=1)


def test_a_message_that_came_to_one_device_of_two_is_lost_on_the_other():
    world = IdealWorld(7, users=2, devices=2, groups=1)
    world.send()
    last = world.send()
    event = next(e for e in world.history.events if e.message == last and e.device == "user-1/1")
    world.history.events.remove(event)
    del world.history.states["user-1/1"][last.id]
    (finding,) = check(world.history)
    assert (finding.kind, finding.message, finding.device) == (Kind.LOST, last.id, "user-1/1")
    assert "1 other device" in finding.what
    assert finding.since == world.history.attempts[1].invoked_at


def test_a_hole_in_the_seqs_is_a_skip_and_the_message_in_it_is_lost():
    world = small()
    message = world.send("group-0")
    world.send("group-0")
    place = next(p for p in hand_overs(world.history) if world.history.events[p].device == "user-0/0")
    del world.history.events[place]
    del world.history.states["user-0/0"][message.id]
    assert kinds(check(world.history)) == {Kind.LOST: 1, Kind.SKIPPED: 1}


def test_seqs_that_jump_without_a_loss_are_a_skip_alone_unless_a_resync_says_so():
    world = small()
    world.send("group-0")
    world.send("group-0")
    places = [p for p in hand_overs(world.history) if world.history.events[p].device == "user-0/0"]
    event = world.history.events[places[1]]
    world.history.events[places[1]] = replace_event(event, seq=9)
    (finding,) = check(world.history)
    assert (finding.kind, finding.message) == (Kind.SKIPPED, event.message and event.message.id)
    assert "seqs 2 to 8" in finding.what
    resync = Event(event.at, event.device, event.stream, "resync", scope="all")
    world.history.events.insert(places[1], resync)
    assert check(world.history) == []
    world.history.events[places[1]] = replace_event(resync, scope="changes")
    assert kinds(check(world.history)) == {Kind.SKIPPED: 1}


def test_another_epoch_without_a_resync_is_a_skip():
    world = small()
    world.send("group-0")
    place = next(p for p in hand_overs(world.history) if world.history.events[p].device == "user-0/0")
    world.history.events[place] = replace_event(world.history.events[place], epoch="f")
    assert kinds(check(world.history)) == {Kind.SKIPPED: 1}


def test_a_stream_that_begins_elsewhere_than_its_cursor_is_found():
    world = small()
    world.send("group-0")
    world.disconnect("user-0/0")
    world.connect("user-0/0")
    place = max(p for p, event in enumerate(world.history.events) if event.name == "" and event.device == "user-0/0")
    ahead = world.history.events[place]
    assert check(world.history) == []
    world.history.events[place] = replace_event(ahead, seq=3)
    assert kinds(check(world.history)) == {Kind.SKIPPED: 1}
    world.history.events[place] = replace_event(ahead, seq=0)
    assert kinds(check(world.history)) == {Kind.NON_MONOTONIC: 1}


def test_a_seq_that_stands_for_a_message_no_longer_to_be_seen_is_no_skip():
    world = small()
    message = world.send("group-0")
    world.send("group-0")
    place = next(p for p in hand_overs(world.history) if world.history.events[p].device == "user-0/0")
    world.history.events[place] = replace_event(world.history.events[place], name="", message=None)
    del world.history.states["user-0/0"][message.id]
    assert kinds(check(world.history)) == {Kind.LOST: 1}  # for he is still a member


def test_two_messages_at_one_place_of_an_inbox_are_inconsistent():
    world = IdealWorld(7, users=3, devices=2)
    one, other = world.send("group-0"), world.send("group-1")
    places = [p for p in hand_overs(world.history) if world.history.events[p].device == "user-1/1"]
    for place, message in zip(places, (other, one), strict=True):
        world.history.events[place] = replace_event(world.history.events[place], message=message)
    found = check(world.history)
    assert [one.kind for one in found] == [Kind.INCONSISTENT, Kind.INCONSISTENT]
    assert {one.message for one in found} == {one.id, other.id}


def test_what_was_sent_while_a_member_was_away_is_neither_owed_nor_allowed():
    world = small()
    before = world.send("group-0")
    membership = next(m for m in world.history.memberships if (m.user, m.conversation_id) == ("user-1", "group-0"))
    membership.left_from, membership.left_by = world.tick(), world.tick()
    world.history.states["user-1/0"].clear()
    world.groups["group-0"] = ["user-0"]
    away = world.send("group-0")
    world.history.memberships.append(Membership("group-0", "user-1", world.tick(), world.tick()))
    world.groups["group-0"] = ["user-0", "user-1"]
    world.send("group-0")
    assert check(world.history) == []
    world.history.loads += [Loaded(world.tick(), "user-1/0", message) for message in (before, away)]
    (finding,) = check(world.history)
    assert (finding.kind, finding.message, finding.device) == (Kind.LEAKED, away.id, "user-1/0")


def test_what_was_handed_over_and_rolled_back_is_aborted():
    world = small()
    message = world.send("group-0")
    world.history.store.clear()
    world.history.attempts = [
        replace(each, outcome=Outcome.UNKNOWN, status=503, message_id=None) for each in world.history.attempts
    ]
    (finding,) = check(world.history)
    assert (finding.kind, finding.message) == (Kind.ABORTED, message.id)
    assert finding.device in {"user-0/0", "user-1/0"}


def test_a_key_that_comes_as_two_messages_is_doubled():
    world = small()
    message = world.send("group-0")
    again = replace(message, id="again", seq=2)
    events = world.history.events
    place = max(p for p in hand_overs(world.history) if events[p].device == "user-0/0")
    events.append(replace_event(events[place], seq=2, message=again))
    assert Kind.DOUBLED in kinds(check(world.history))


def test_a_message_that_says_other_than_was_sent_is_unexpected():
    world = small()
    message = world.send("group-0")
    world.history.attempts = [replace(each, content="other") for each in world.history.attempts]
    assert [(one.kind, one.message) for one in check(world.history)] == [(Kind.UNEXPECTED, message.id)]


def kinds(findings: Iterable[Finding]) -> dict[Kind, int]:
    found: dict[Kind, int] = {}
    for one in findings:
        found[one.kind] = found.get(one.kind, 0) + 1
    return found


def test_a_finding_says_what_where_and_when():
    history = ideal_history(5, steps=20)
    message_id = SABOTAGE[NAMES.index("hand_over_twice")][1](history, random.Random(1))
    (finding,) = check(history)
    assert finding.device in history.devices
    assert finding.user == history.devices[finding.device].user
    text = describe(history, [finding])
    assert text.startswith(f"seed {history.seed}: ")
    assert f"doubled: message {message_id}, {finding.device}: handed over again" in text
    assert f"seen {finding.at:.3f}" in text


def test_what_a_device_missed_while_it_was_away_is_no_delay():
    world = IdealWorld(7, users=2, devices=1, groups=1)
    world.disconnect("user-1/0")
    world.send()
    world.tick()
    world.connect("user-1/0")
    assert max(seconds for _, seconds in delays(world.history)) > 0
    opened_at = next(event.at for event in reversed(world.history.events) if event.name == "connected")
    world.history.returns["user-1/0"] = opened_at
    assert [seconds for _, seconds in delays(world.history)] == [0]


def test_the_summary_counts_and_measures():
    world = small()
    world.send_twice()
    world.refused()
    total = summarize(world.history, [])
    assert (total.sends, total.attempts, total.unknown, total.stored) == (2, 3, 1, 1)
    assert total.handed_over == 2
    assert total.slowest_answer_seconds > 0
    assert [seconds for _, seconds in delays(world.history)] == [0, 0]  # they had it before the answer


def test_a_whole_run_is_judged_in_seconds():
    """A tenth of 400 sends a second for 40 s to 400 devices: 0.3 s of this machine."""
    world = IdealWorld(1, users=40, groups=28, members=7)
    for number in range(1600):
        world.send()
        if number % 10 == 0:
            for act in (world.react, world.edit, world.read, world.type):
                act()
    world.play(0)
    assert len(world.history.events) > 22_000
    started = time.process_time()
    assert check(world.history) == []
    assert time.process_time() - started < 1.5
