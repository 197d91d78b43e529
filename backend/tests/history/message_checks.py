"""Every message against its sender, the store, and whoever it was for; and what was done to it later."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby

from tests.history.facts import Facts
from tests.history.findings import Finding, Kind
from tests.history.records import Alteration, Message, Outcome

SHOWN_FIELDS = (
    "conversation_id",
    "seq",
    "rev",
    "sender",
    "key",
    "content",
    "is_edited",
    "is_deleted",
    "reactions",
)


def check_messages(facts: Facts) -> Iterator[Finding]:
    yield from _stored(facts)
    yield from _handed_off(facts)
    yield from _leaked(facts)
    yield from _lost(facts)
    yield from _states(facts)
    yield from _altered(facts)


def differences(shown: Message, stored: Message) -> str:
    """What one shows otherwise than the other; empty where they are alike."""
    if shown == stored:
        return ""
    wrong = [name for name in SHOWN_FIELDS if getattr(shown, name) != getattr(stored, name)]
    return "; ".join(f"{name} {getattr(shown, name)!r:.60}, not {getattr(stored, name)!r:.60}" for name in wrong)


def _stored(facts: Facts) -> Iterator[Finding]:
    """Aborted: acknowledged, and not there. Unexpected and doubled: there, and not so sent."""
    for attempts in facts.attempts.values():
        for message_id in sorted({each.message_id for each in attempts if each.message_id}):
            if message_id not in facts.store:
                ended_at = next(each.ended_at for each in attempts if each.message_id == message_id)
                what = "acknowledged, not in the store"
                yield facts.finding(Kind.ABORTED, message_id, attempts[0].sender, what, at=ended_at)
    by_key = sorted(facts.history.store, key=lambda one: (one.sender, one.key, one.seq))
    for (sender, key), same in groupby(by_key, key=lambda one: (one.sender, one.key)):
        first, *others = same
        for other in others:
            yield facts.finding(Kind.DOUBLED, other.id, sender, f"key {key} is stored as {first.id} as well")
        yield from _judge_origin(facts, first, "stored", device="", at=None)


def _handed_off(facts: Facts) -> Iterator[Finding]:
    """Seen by somebody, and not in the store, refused or never sent."""
    for message_id, (at, device, message) in facts.seen.items():
        if message_id in facts.store:
            continue
        attempts = facts.attempts.get((message.sender, message.key), [])
        if any(each.message_id == message_id for each in attempts):
            continue  # acknowledged: named above
        origin = list(_judge_origin(facts, message, "handed over", device=device, at=at))
        yield from origin
        if not origin:
            yield facts.finding(Kind.ABORTED, message_id, "", "handed over, not in the store", device=device, at=at)


def _leaked(facts: Facts) -> Iterator[Finding]:
    """Handed over, or shown edited, to somebody who was no member when it was sent."""
    is_leaked: dict[tuple[str, str], bool] = {}

    def judge(message: Message, device: str) -> bool:
        key = message.id, facts.user_of(device)
        if key not in is_leaked:
            is_leaked[key] = facts.is_leaked(message, key[1])
        return is_leaked[key]

    for device, messages in facts.handed.items():
        for message_id, at in messages.items():
            if judge(facts.seen[message_id][2], device):
                yield facts.finding(Kind.LEAKED, message_id, "", "is no member", device=device, at=at)
    for event in facts.history.events:
        if event.name == "message_edited" and event.message and judge(event.message, event.device):
            what = "is no member, and sees the edit"
            yield facts.finding(Kind.LEAKED, event.message.id, "", what, device=event.device, at=event.at)


def _lost(facts: Facts) -> Iterator[Finding]:
    """In the store, and a device of a member never got it; or the last words were not there when time was up."""
    late = dict(facts.history.unheard)
    for message in facts.history.store:
        start, end = facts.commit_window(message)
        for user in sorted(facts.members[message.conversation_id]):
            if not facts.is_owed(message.conversation_id, user, start):
                continue
            for device in facts.devices_of[user]:
                if message.id not in facts.handed[device]:
                    late.pop(device, None)  # said once
                    others = sum(message.id in facts.handed[other] for other in facts.devices_of[user])
                    what = f"never came; {others} other devices of this user have it"
                    seen_at = None if math.isinf(end) else end
                    yield facts.finding(Kind.LOST, message.id, user, what, device=device, at=seen_at)
    for device, count in late.items():
        yield facts.finding(Kind.LOST, "", "", f"{count} of the last words had not come", device=device)


def _states(facts: Facts) -> Iterator[Finding]:
    """What devices show, against REST."""
    for device, state in facts.history.states.items():
        user = facts.user_of(device)
        for message_id, shown in state.items():
            stored = facts.store.get(message_id)
            if stored is None or not facts.is_member_in_the_end(stored.conversation_id, user):
                continue  # what nobody stored is named where it was handed over
            if wrong := differences(shown, stored):
                yield facts.finding(Kind.DIVERGED, message_id, user, wrong, device=device)
        for message_id in facts.handed[device].keys() - state.keys():
            stored = facts.store.get(message_id)
            if stored and facts.is_owed(stored.conversation_id, user, facts.commit_window(stored)[0]):
                what = "was handed over, and is not shown"
                yield facts.finding(Kind.DIVERGED, message_id, user, what, device=device)


def _altered(facts: Facts) -> Iterator[Finding]:
    """Edits, deletes and reactions: what was acknowledged is there, what is there was asked for."""
    by_message: dict[str, dict[str, list[Alteration]]] = defaultdict(lambda: defaultdict(list))
    for each in facts.history.alterations:
        by_message[each.message_id][each.kind].append(each)
    for message in facts.history.store:
        asked = by_message.get(message.id, {})
        for kind, what in _unexplained(message, asked):
            if kind is Kind.UNEXPECTED and not by_message:
                continue  # a run that writes none down may have editors of its own
            yield facts.finding(kind, message.id, "", f"in the store: {what}")


def _unexplained(message: Message, asked: dict[str, list[Alteration]]) -> Iterator[tuple[Kind, str]]:
    edits = [each for each in asked.get("edit", []) if not each.is_refused]
    deletes = [each for each in asked.get("delete", []) if not each.is_refused]
    reactions = [each for each in asked.get("react", []) if not each.is_refused]
    if message.is_deleted and not deletes:
        yield Kind.UNEXPECTED, "deleted by nobody"
    if not message.is_deleted and any(each.is_acknowledged for each in deletes):
        yield Kind.ABORTED, "a delete was acknowledged, and is not there"
    if message.is_deleted:
        return  # an edit and reactions have gone with it
    if message.is_edited:
        surely_over = max((each.invoked_at for each in edits if each.is_acknowledged), default=-math.inf)
        if message.content not in {each.content for each in edits}:
            yield Kind.UNEXPECTED, f"edited to {message.content!r:.60}, which nobody asked"
        elif message.content not in {each.content for each in edits if _over_by(each) >= surely_over}:
            yield Kind.ABORTED, f"an edit was acknowledged after {message.content!r:.60}"
    elif any(each.is_acknowledged for each in edits):
        yield Kind.ABORTED, "an edit was acknowledged, and is not there"
    counts = dict(message.reactions)
    for emoji in sorted({each.content for each in reactions} | counts.keys()):
        of_it = [each for each in reactions if each.content == emoji]
        taken_back = {each.user for each in asked.get("unreact", []) if each.content == emoji}
        least = len({each.user for each in of_it if each.is_acknowledged} - taken_back)
        most = len({each.user for each in of_it})
        count = counts.get(emoji, 0)
        if count < least:
            yield Kind.ABORTED, f"{count} reactions, {least} were acknowledged"
        elif count > most:
            yield Kind.UNEXPECTED, f"{count} reactions, {most} were asked for"


def _over_by(alteration: Alteration) -> float:
    """When it was done, if it was; one without an answer may still be under way."""
    return alteration.ended_at if alteration.is_acknowledged else math.inf


def _judge_origin(facts: Facts, message: Message, what: str, *, device: str, at: float | None) -> Iterator[Finding]:
    attempts = facts.attempts.get((message.sender, message.key), [])
    if not attempts:
        yield facts.finding(Kind.UNEXPECTED, message.id, "", f"{what}, never sent", device=device, at=at)
    elif all(each.outcome is Outcome.REFUSED for each in attempts):
        yield facts.finding(Kind.ABORTED, message.id, message.sender, f"{what}, refused", device=device, at=at)
    elif attempts[0].conversation_id != message.conversation_id or not (
        message.is_edited or message.is_deleted or message.content == attempts[0].content
    ):
        yield facts.finding(Kind.UNEXPECTED, message.id, "", f"{what}, sent otherwise", device=device, at=at)
