"""The checker of the fault runs accuses only where no order of events explains what was seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.history.checker import check
from tests.history.findings import Kind
from tests.history.ideal import IdealWorld, ideal_history
from tests.history.records import Event, History, Notice, Outcome
from tests.history.sabotage_messages import hand_overs, replace_event


def kinds(history: History) -> dict[Kind, int]:
    return dict(Counter(one.kind for one in check(history)))


def counted_places(history: History, device: str) -> list[int]:
    return [at for at, event in enumerate(history.events) if event.device == device and event.change is not None]


def reacted() -> IdealWorld:
    """Three reactions of one user to three messages, on two devices of another."""
    world = IdealWorld(7, users=2, devices=2, groups=1)
    for message in [world.send() for _ in range(3)]:
        world.react(message, "user-0")
    return world


def test_a_hole_in_the_changes_is_no_finding_if_a_resync_owns_up_to_it():
    world = reacted()
    events = world.history.events
    place = counted_places(world.history, "user-1/0")[1]
    missed = events.pop(place)
    (finding,) = check(world.history)
    assert (finding.kind, finding.device) == (Kind.MISSED_CHANGE, "user-1/0")
    assert "change 2 (reaction_update of message" in finding.what
    resync = Event(missed.at, missed.device, missed.stream, "resync", scope="changes")
    for where in (place, len(events)):  # before the one that follows, or later
        events.insert(where, resync)
        assert check(world.history) == []
        del events[where]
    assert kinds(world.history) == {Kind.MISSED_CHANGE: 1}


def test_a_change_that_comes_late_or_twice_is_no_finding():
    world = reacted()
    events = world.history.events
    first, second, third = counted_places(world.history, "user-1/0")
    events.append(events[first])
    events[second], events[third] = events[third], events[second]
    assert check(world.history) == []


def test_a_hole_just_before_the_end_of_a_stream_is_no_finding():
    """The late frame, or the resync, may have been cut off with it."""
    world = reacted()
    _, second, third = counted_places(world.history, "user-1/0")
    last = world.history.events[third]
    del world.history.events[second]
    world.history.streams[last.stream].ended_at = last.at + 0.9
    assert check(world.history) == []
    world.history.streams[last.stream].ended_at = last.at + 1.1
    assert kinds(world.history) == {Kind.MISSED_CHANGE: 1}


def test_changes_of_before_a_stream_was_opened_are_not_owed_on_it():
    world = IdealWorld(7, users=2, devices=2, groups=1)
    messages = [world.send() for _ in range(3)]
    world.disconnect("user-1/0")
    world.react(messages[0], "user-0")
    world.connect("user-1/0")
    world.react(messages[1], "user-0")
    assert check(world.history) == []


def test_numbers_of_changes_begin_anew_with_another_epoch():
    world = reacted()
    place, *_ = counted_places(world.history, "user-1/0")
    event = world.history.events[place]
    for epoch in ("e", "f"):
        notice = event.notice and event.notice._replace(rev=77)
        world.history.events += [
            replace_event(event, name="resync", change=None, notice=None, scope="all"),
            replace_event(event, name="", change=None, notice=None, epoch=epoch, seq=3),
            replace_event(event, notice=notice),
        ]
        assert kinds(world.history) == ({Kind.INCONSISTENT: 1} if epoch == "e" else {})
        del world.history.events[-3:]


def test_a_heartbeat_after_a_resync_counts_from_where_the_stream_goes_on():
    world = IdealWorld(7, users=2, devices=1, groups=1)
    world.send()
    stream = world.streams["user-0/0"]
    assert stream is not None
    world.event(stream, "heartbeat", notice=Notice(seq=4))
    assert kinds(world.history) == {Kind.SKIPPED: 1}
    beat = world.history.events.pop()
    world.history.events += [replace_event(beat, name="resync", notice=None, scope="all"), beat]
    assert kinds(world.history) == {}


def test_silence_is_no_finding_while_a_run_makes_it():
    history = ideal_history(4, steps=20)
    attempt = replace(history.attempts[0], is_silent=True, ended_at=history.attempts[0].invoked_at + 10)
    history.attempts[0] = attempt
    assert kinds(history) == {Kind.UNANSWERED: 1}
    history.mutes.append((attempt.ended_at + 0.1, attempt.ended_at + 5))
    assert kinds(history) == {Kind.UNANSWERED: 1}
    history.mutes.append((attempt.invoked_at + 3, attempt.invoked_at + 4))
    assert check(history) == []


@pytest.mark.parametrize("status, found", [(0, 0), (401, 0), (404, 1), (409, 1), (429, 0), (500, 1), (503, 0)])
def test_an_answer_is_a_finding_if_no_member_may_get_it(status: int, found: int):
    world = IdealWorld(7, users=3, devices=1)
    world.send("group-0")
    sent = world.history.attempts[0]
    outcome = Outcome.REFUSED if 400 <= status < 500 and status != 429 else Outcome.UNKNOWN
    again = replace(sent, key="other", outcome=outcome, status=status, message_id=None)
    world.history.attempts.append(again)
    assert kinds(world.history) == ({Kind.REFUSED: found} if found else {})
    world.history.attempts[1] = replace(again, sender="user-2")  # who is no member
    assert kinds(world.history) == ({Kind.REFUSED: 1} if status in {409, 500} else {})


def test_typing_that_comes_after_a_removal_is_leaked_only_if_it_began_after_it():
    world = IdealWorld(7, users=3, devices=1, groups=1)
    user = next(each for each in world.groups["group-0"][1:])
    typist = world.groups["group-0"][0]
    world.groups["group-0"] = [typist]
    world.type()
    world.remove("group-0", user)
    (_, stream), *_ = world.on_line(user)
    world.event(stream, "typing_status", notice=Notice("group-0", user=typist))
    assert kinds(world.history) == {}
    world.history.calls.clear()
    world.type()
    world.history.events.append(world.history.events.pop()._replace(at=world.tick()))
    assert kinds(world.history) == {Kind.LEAKED: 1}


def test_a_device_that_left_for_good_owes_nothing_but_order():
    world = IdealWorld(7, users=2, devices=2, groups=1)
    for _ in range(3):
        world.send()
    world.leave_for_good("user-1/0")
    world.send()
    assert check(world.history) == []
    place = [at for at in hand_overs(world.history) if world.history.events[at].device == "user-1/0"][1]
    del world.history.events[place]
    assert kinds(world.history) == {Kind.SKIPPED: 1}


@pytest.mark.parametrize(
    "status, found",
    [(503, {}), (200, {Kind.ABORTED: 1}), (403, {Kind.UNEXPECTED: 1})],
    ids=["unknown", "over", "refused"],
)
def test_an_edit_without_an_answer_may_be_done_after_one_that_was_acknowledged(status: int, found: dict[Kind, int]):
    world = IdealWorld(7, users=3, devices=1)
    message = world.send("group-0")
    world._alter("edit", message, message.sender, "edited", replace(message, content="edited", is_edited=True))
    (edit,) = world.history.alterations
    later = replace(edit, content="later", invoked_at=edit.ended_at + 1, ended_at=edit.ended_at + 2)
    world.history.alterations = [replace(edit, status=status), later]
    assert kinds(world.history) == found


def test_a_reaction_that_was_taken_back_need_not_be_there():
    world = IdealWorld(7, users=3, devices=1)
    message = world.send("group-0")
    world.react(message, message.sender)
    (message,) = world.history.store
    alteration = world.history.alterations[0]
    world.history.alterations.append(replace(alteration, kind="unreact"))
    gone = replace(message, reactions=())
    world._alter("react", message, "user-1", "+", gone)
    assert kinds(world.history) == {Kind.ABORTED: 1}  # that of user-1
    del world.history.alterations[-1]
    assert check(world.history) == []


def test_what_a_run_does_not_write_down_a_scenario_may_do_past_it():
    world = IdealWorld(7, users=3, devices=1)
    message = world.send("group-0")
    world.type()
    world.edit()
    for user in world.groups["group-0"]:
        world.has_read("group-0", user, message.seq)
    world.read_all()
    world.tell_change("user-0", "conversation_updated", notice=Notice("of its own", rev=2))
    stream = world.streams["user-0/0"]
    assert stream is not None
    world.event(stream, "typing_status", notice=Notice("of its own", user="user-9"))
    listed = world.history.listings["user-0"][0]
    world.history.listings["user-0"].append(listed._replace(conversation_id="of its own"))
    assert message.sender == world.history.alterations[0].user
    for unwritten in (world.history.calls, world.history.alterations):
        unwritten.clear()
    assert kinds(world.history) == {}
