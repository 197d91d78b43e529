"""Answers: there is one to everything, it is a permission where there is one; and what is told of others' doing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from tests.history.facts import Facts
from tests.history.findings import Finding, Kind
from tests.history.records import Call, Notice, Outcome, is_refusal

# Refused for reasons that a history does not hold: a token that was revoked on purpose.
UNAUTHORIZED = 401
# Who is no member, or may do this no more, gets one of these.
MAY_NOT = {403, 404}
DEFECT = 500
EPHEMERAL = {"typing_status", "read_receipt"}


def check_answers(facts: Facts) -> Iterator[Finding]:
    yield from _unanswered(facts)
    yield from _refused(facts)
    yield from _ephemeral(facts)


def _unanswered(facts: Facts) -> Iterator[Finding]:
    """Requests and streams that were silent, though no run said that something would be."""
    history = facts.history

    def is_meant(begin: float, end: float) -> bool:
        return any(begin <= until and since <= end for since, until in history.mutes)

    for attempt in history.attempts:
        if attempt.is_silent and not is_meant(attempt.invoked_at, attempt.ended_at):
            what = f"send {attempt.key} had no answer for {attempt.ended_at - attempt.invoked_at:.1f} s"
            yield facts.finding(Kind.UNANSWERED, "", attempt.sender, what, at=attempt.ended_at)
    for call in history.calls:
        if call.is_silent and not is_meant(call.invoked_at, call.ended_at):
            what = f"{call.route} had no answer for {call.ended_at - call.invoked_at:.1f} s"
            yield facts.finding(Kind.UNANSWERED, "", call.user, what, at=call.ended_at)
    for stream in history.streams:
        if stream.silent_since is not None and not is_meant(stream.silent_since, stream.ended_at):
            what = f"stream {stream.number} was silent for {stream.ended_at - stream.silent_since:.1f} s"
            yield facts.finding(Kind.UNANSWERED, "", "", what, device=stream.device, at=stream.ended_at)


def _refused(facts: Facts) -> Iterator[Finding]:
    """Refused to a member, or a failure that no clause knows."""
    known = {(message.sender, message.key) for message in facts.history.store}
    known |= {(message.sender, message.key) for _, _, message in facts.seen.values()}
    for each in facts.history.attempts:
        if (each.sender, each.key) in known and each.outcome is Outcome.REFUSED:
            continue  # named where it was seen
        was_member = facts.was_surely_member(each.conversation_id, each.sender, each.invoked_at, each.ended_at)
        if _is_wrong(each.status, may_be_refused=not was_member):
            what = f"send {each.key} to conversation {each.conversation_id} was answered {each.status}"
            yield facts.finding(Kind.REFUSED, "", each.sender, what, at=each.ended_at)
    for call in facts.history.calls:
        if call.status >= 400 and _is_wrong(call.status, may_be_refused=_may_be_refused(facts, call)):
            about = f" of conversation {call.conversation_id}" if call.conversation_id else ""
            what = f"{call.route}{about} was answered {call.status}"
            yield facts.finding(Kind.REFUSED, "", call.user, what, at=call.ended_at)


def _is_wrong(status: int, *, may_be_refused: bool) -> bool:
    if status == DEFECT:
        return True
    return is_refusal(status) and status != UNAUTHORIZED and not (status in MAY_NOT and may_be_refused)


def _may_be_refused(facts: Facts, call: Call) -> bool:
    """Whether a call is about a message or a member, which may be gone, or by somebody who may be."""
    if not call.conversation_id or "/members/" in call.route:
        return True
    return not facts.was_surely_member(call.conversation_id, call.user, call.invoked_at, call.ended_at)


def _ephemeral(facts: Facts) -> Iterator[Finding]:
    """Typing and receipts: somebody did it, and who hears of it may have been a member then."""
    doers = _Doers(facts)
    for event in facts.history.events:
        notice = event.notice
        # The conversations of a scenario's own are left out: who is in them is not written down.
        if notice is None or event.name not in EPHEMERAL or notice.conversation_id not in facts.members:
            continue
        about = f"{event.name} of {notice.user} in conversation {notice.conversation_id}"
        if not doers.is_explained(event.name, notice, event.at):
            what = f"{about}, who did nothing of the kind"
            yield facts.finding(Kind.UNEXPECTED, "", "", what, device=event.device, at=event.at)
        elif doers.is_leaked(event.name, notice, event.at, facts.user_of(event.device)):
            what = f"{about}, of which he is no member"
            yield facts.finding(Kind.LEAKED, "", "", what, device=event.device, at=event.at)
        if event.name == "typing_status" and facts.user_of(event.device) == notice.user:
            what = f"is told of his own typing in conversation {notice.conversation_id}"
            yield facts.finding(Kind.UNEXPECTED, "", "", what, device=event.device, at=event.at)


class _Doers:
    """Who typed and read where: from when, and until when it may have been told; an unknown answer leaves it open."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._done: dict[tuple[str, str, str], list[tuple[float, float, int]]] = defaultdict(list)
        for call in facts.history.calls:
            if call.route == "POST /conversations/{}/typing" and not is_refusal(call.status):
                over_by = call.ended_at if 200 <= call.status < 300 else math.inf
                self._done["typing_status", call.conversation_id, call.user].append((call.invoked_at, over_by, 0))
        for mark in facts.history.read_marks:
            over_by = mark.ended_at if mark.answered is not None else math.inf
            self._done["read_receipt", mark.conversation_id, mark.user].append((mark.invoked_at, over_by, mark.seq))
        # A run that writes nothing of a kind down may have doers of its own.
        self._recorded = {name for name, _, _ in self._done}
        self._since: dict[tuple[str, Notice], float] = {}

    def is_explained(self, name: str, notice: Notice, at: float) -> bool:
        key = name, notice
        if key not in self._since:
            self._since[key] = min((begin for begin, _ in self._times(name, notice)), default=math.inf)
        return self._since[key] <= at

    def is_leaked(self, name: str, notice: Notice, at: float, user: str) -> bool:
        periods = self.facts.memberships.get((notice.conversation_id, user), ())
        if any(each.joined_from <= self._since[name, notice] and at <= each.left_by for each in periods):
            return False
        return all(
            self.facts.was_never_member(notice.conversation_id, user, begin, min(end, at))
            for begin, end in self._times(name, notice)
            if begin <= at
        )

    def _times(self, name: str, notice: Notice) -> list[tuple[float, float]]:
        if name not in self._recorded:
            return [(-math.inf, math.inf)]
        done = self._done.get((name, notice.conversation_id, notice.user), [])
        return [(begin, end) for begin, end, seq in done if seq >= (notice.seq or 0)]
