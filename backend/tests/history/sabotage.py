"""Ways to break a history: each breaks one promise at one place, and tells what a finding must name."""

from __future__ import annotations

from tests.history import sabotage_changes as changes
from tests.history import sabotage_ending as ending
from tests.history import sabotage_messages as messages
from tests.history.findings import Kind
from tests.history.sabotage_messages import Sabotage

SABOTAGE: list[tuple[Kind, Sabotage]] = [
    (Kind.LOST, messages.lose),
    (Kind.LOST, messages.lose_page),
    (Kind.LOST, messages.stand_still),
    (Kind.ABORTED, messages.drop_from_store),
    (Kind.ABORTED, messages.refuse),
    (Kind.UNEXPECTED, messages.never_send),
    (Kind.DOUBLED, messages.hand_over_twice),
    (Kind.DOUBLED, messages.store_twice),
    (Kind.NON_MONOTONIC, messages.swap),
    (Kind.SKIPPED, messages.jump),
    (Kind.INCONSISTENT, messages.exchange),
    (Kind.DIVERGED, messages.show_otherwise),
    (Kind.LEAKED, messages.leak),
    (Kind.MISSED_CHANGE, changes.miss_change),
    (Kind.MISSED_CHANGE, changes.miss_first_change),
    (Kind.INCONSISTENT, changes.mistake_change),
    (Kind.LEAKED, changes.leak_change),
    (Kind.LEAKED, changes.leak_edit),
    (Kind.SKIPPED, changes.boast),
    (Kind.ABORTED, changes.take_back_edit),
    (Kind.ABORTED, changes.take_back_newer_edit),
    (Kind.UNEXPECTED, changes.edit_unasked),
    (Kind.ABORTED, changes.take_back_delete),
    (Kind.UNEXPECTED, changes.delete_unasked),
    (Kind.ABORTED, changes.take_back_reaction),
    (Kind.UNEXPECTED, changes.react_unasked),
    (Kind.UNANSWERED, changes.silence_send),
    (Kind.UNANSWERED, changes.silence_call),
    (Kind.UNANSWERED, changes.silence_stream),
    (Kind.REFUSED, changes.refuse_member),
    (Kind.REFUSED, changes.fail),
    (Kind.UNEXPECTED, changes.type_unasked),
    (Kind.LEAKED, changes.type_to_stranger),
    (Kind.UNEXPECTED, changes.type_to_oneself),
    (Kind.UNEXPECTED, changes.read_unasked),
    (Kind.DIVERGED, ending.hide),
    (Kind.DIVERGED, ending.show_to_one),
    (Kind.NON_MONOTONIC, ending.turn_round),
    (Kind.LEAKED, ending.show_stranger),
    (Kind.DIVERGED, ending.forget_conversation),
    (Kind.DIVERGED, ending.list_twice),
    (Kind.LEAKED, ending.list_to_stranger),
    (Kind.DIVERGED, ending.show_last_otherwise),
    (Kind.DIVERGED, ending.show_older_last),
    (Kind.DIVERGED, ending.show_no_last),
    (Kind.DIVERGED, ending.miscount),
    (Kind.DIVERGED, ending.end_early),
    (Kind.DIVERGED, ending.lag),
    (Kind.ABORTED, ending.read_less),
    (Kind.ABORTED, ending.read_less_than_said),
    (Kind.DIVERGED, ending.read_less_than_sent),
    (Kind.UNEXPECTED, ending.read_more),
    (Kind.DIVERGED, ending.list_other_position),
    (Kind.DIVERGED, ending.show_position),
]
NAMES = [sabotage.__name__ for _, sabotage in SABOTAGE]
