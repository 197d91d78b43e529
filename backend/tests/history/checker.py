"""History in, findings out: no I/O, no clock, no knowledge of the server."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby

from tests.history.findings import Finding, Kind
from tests.history.records import Attempt, History, Membership, Message, Outcome
from tests.history.stream_checks import check_streams

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


def check(history: History) -> list[Finding]:
    """Give every anomaly, in the order of `Kind`, then of time."""
    judge = _Judge(history)
    findings = [*check_streams(history), *judge.stored(), *judge.handed_off(), *judge.lost(), *judge.states()]
    order = list(Kind)
    return sorted(findings, key=lambda one: (order.index(one.kind), one.at or 0, one.message, one.device))


class _Judge:
    """The history, indexed."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.attempts: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
        for attempt in history.attempts:
            self.attempts[attempt.sender, attempt.key].append(attempt)
        self.store = {message.id: message for message in history.store}
        self.memberships: dict[tuple[str, str], list[Membership]] = defaultdict(list)
        self.members: dict[str, set[str]] = defaultdict(set)
        for membership in history.memberships:
            self.memberships[membership.conversation_id, membership.user].append(membership)
            self.members[membership.conversation_id].add(membership.user)
        self.devices_of: dict[str, list[str]] = defaultdict(list)
        for device in history.devices.values():
            if device.is_present:
                self.devices_of[device.user].append(device.name)
        # Device -> message id -> when it came first, by stream or REST.
        self.handed: dict[str, dict[str, float]] = {name: {} for name in history.devices}
        self.seen: dict[str, tuple[float, str, Message]] = {}
        handed_off = [(e.at, e.device, e.message) for e in history.events if e.message and e.name == "new_message"]
        handed_off += [(load.at, load.device, load.message) for load in history.loads]
        for at, name, message in handed_off:
            first = self.handed[name].get(message.id, math.inf)
            self.handed[name][message.id] = min(at, first)
            if message.id not in self.seen or at < self.seen[message.id][0]:
                self.seen[message.id] = at, name, message

    # --- Messages --------------------------------------------------------------------------------

    def stored(self) -> Iterator[Finding]:
        """Aborted: acknowledged, and not there. Unexpected and doubled: there, and not so sent."""
        for attempts in self.attempts.values():
            for message_id in sorted({each.message_id for each in attempts if each.message_id}):
                if message_id not in self.store:
                    ended_at = next(each.ended_at for each in attempts if each.message_id == message_id)
                    yield self._finding(
                        Kind.ABORTED, message_id, attempts[0].sender, "acknowledged, not in the store", at=ended_at
                    )
        by_key = sorted(self.history.store, key=lambda one: (one.sender, one.key, one.seq))
        for (sender, key), same in groupby(by_key, key=lambda one: (one.sender, one.key)):
            first, *others = same
            for other in others:
                yield self._finding(Kind.DOUBLED, other.id, sender, f"key {key} is stored as {first.id} as well")
            yield from self._judge_origin(first, "stored", device="", at=None)

    def handed_off(self) -> Iterator[Finding]:
        """Seen by somebody, and not in the store, refused, never sent, or not meant for him."""
        for message_id, (at, device, message) in self.seen.items():
            if message_id in self.store:
                continue
            attempts = self.attempts.get((message.sender, message.key), [])
            if any(each.message_id == message_id for each in attempts):
                continue  # acknowledged: named above
            origin = list(self._judge_origin(message, "handed over", device=device, at=at))
            yield from origin
            if not origin:
                yield self._finding(Kind.ABORTED, message_id, "", "handed over, not in the store", device=device, at=at)
        for device, messages in self.handed.items():
            for message_id, at in messages.items():
                if self._is_leaked(self.seen[message_id][2], self.history.devices[device].user):
                    yield self._finding(Kind.LEAKED, message_id, "", "is no member", device=device, at=at)

    def lost(self) -> Iterator[Finding]:
        """In the store, and a device of a member never got it."""
        for message in self.history.store:
            start, end = self._commit_window(message)
            for user in sorted(self.members[message.conversation_id]):
                if not self._is_owed(message.conversation_id, user, start):
                    continue
                for device in self.devices_of[user]:
                    if message.id not in self.handed[device]:
                        others = sum(message.id in self.handed[other] for other in self.devices_of[user])
                        what = f"never came; {others} other devices of this user have it"
                        seen_at = None if math.isinf(end) else end
                        yield self._finding(Kind.LOST, message.id, user, what, device=device, at=seen_at)

    def states(self) -> Iterator[Finding]:
        """What devices show, against REST."""
        for device, state in self.history.states.items():
            user = self.history.devices[device].user
            for message_id, shown in state.items():
                stored = self.store.get(message_id)
                if stored is None or not self._is_member_in_the_end(stored.conversation_id, user):
                    continue  # what nobody stored is named where it was handed over
                wrong = [name for name in SHOWN_FIELDS if getattr(shown, name) != getattr(stored, name)]
                if wrong:
                    what = "; ".join(
                        f"{name} {getattr(shown, name)!r:.60}, not {getattr(stored, name)!r:.60}" for name in wrong
                    )
                    yield self._finding(Kind.DIVERGED, message_id, user, what, device=device)
            for message_id in self.handed[device].keys() - state.keys():
                stored = self.store.get(message_id)
                if stored and self._is_owed(stored.conversation_id, user, self._commit_window(stored)[0]):
                    what = "was handed over, and is not shown"
                    yield self._finding(Kind.DIVERGED, message_id, user, what, device=device)

    # --- Answers ---------------------------------------------------------------------------------

    def _judge_origin(self, message: Message, what: str, *, device: str, at: float | None) -> Iterator[Finding]:
        attempts = self.attempts.get((message.sender, message.key), [])
        if not attempts:
            yield self._finding(Kind.UNEXPECTED, message.id, "", f"{what}, never sent", device=device, at=at)
        elif all(each.outcome is Outcome.REFUSED for each in attempts):
            yield self._finding(Kind.ABORTED, message.id, message.sender, f"{what}, refused", device=device, at=at)
        elif attempts[0].conversation_id != message.conversation_id or not (
            message.is_edited or message.is_deleted or message.content == attempts[0].content
        ):
            yield self._finding(Kind.UNEXPECTED, message.id, "", f"{what}, sent otherwise", device=device, at=at)

    def _commit_window(self, message: Message) -> tuple[float, float]:
        """Between which two times it was committed, as far as its sender and receivers can tell."""
        attempts = self.attempts.get((message.sender, message.key), [])
        start = min((each.invoked_at for each in attempts), default=-math.inf)
        ends = [each.ended_at for each in attempts if each.outcome is Outcome.ACKNOWLEDGED]
        if message.id in self.seen:
            ends.append(self.seen[message.id][0])
        return start, min(ends, default=math.inf)

    def _is_owed(self, conversation_id: str, user: str, start: float) -> bool:
        """Whether this user was surely a member from then to the end."""
        return any(
            each.joined_by <= start and math.isinf(each.left_from) for each in self.memberships[conversation_id, user]
        )

    def _is_member_in_the_end(self, conversation_id: str, user: str) -> bool:
        return self._is_owed(conversation_id, user, math.inf)

    def _is_leaked(self, message: Message, user: str) -> bool:
        """Whether this user was surely no member when it was committed."""
        start, end = self._commit_window(message)
        return not any(
            each.joined_from <= end and start <= each.left_by
            for each in self.memberships.get((message.conversation_id, user), [])
        )

    def _finding(
        self, kind: Kind, message_id: str, user: str, what: str, *, device: str = "", at: float | None = None
    ) -> Finding:
        message = self.store.get(message_id) or self.seen.get(message_id, (0, "", None))[2]
        attempts = self.attempts.get((message.sender, message.key), []) if message else []
        since = min((each.invoked_at for each in attempts), default=None)
        user = user or (self.history.devices[device].user if device else "")
        return Finding(kind, message_id, user, device, what, at, since)
