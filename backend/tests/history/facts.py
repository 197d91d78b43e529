"""The history, indexed: who sent what when, who was a member when, who saw what first."""

from __future__ import annotations

import math
from collections import defaultdict

from tests.history.findings import Finding, Kind
from tests.history.records import Attempt, History, Membership, Message, Outcome

# What an event says was done to a message, by the request that does it.
EVENT_OF = {
    "edit": "message_edited",
    "delete": "message_deleted",
    "react": "reaction_update",
    "unreact": "reaction_update",
}


class Facts:
    """Made once for all checks."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.store = {message.id: message for message in history.store}
        self.attempts: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
        for attempt in history.attempts:
            self.attempts[attempt.sender, attempt.key].append(attempt)
        self.memberships: dict[tuple[str, str], list[Membership]] = defaultdict(list)
        self.members: dict[str, set[str]] = defaultdict(set)
        for membership in history.memberships:
            self.memberships[membership.conversation_id, membership.user].append(membership)
            self.members[membership.conversation_id].add(membership.user)
        # Devices that are there in the end, and so must have everything.
        self.devices_of: dict[str, list[str]] = defaultdict(list)
        for device in history.devices.values():
            if device.is_present:
                self.devices_of[device.user].append(device.name)
        # The first request that may have made such an event of such a message.
        self.altered_from: dict[tuple[str, str], float] = {}
        for each in history.alterations:
            key = EVENT_OF[each.kind], each.message_id
            self.altered_from[key] = min(each.invoked_at, self.altered_from.get(key, math.inf))
        # Device -> message id -> when it came first, by stream or REST; and of all devices, the very first.
        self.handed: dict[str, dict[str, float]] = {name: {} for name in history.devices}
        self.seen: dict[str, tuple[float, str, Message]] = {}
        for event in history.events:
            if event.message is not None:
                if event.name == "new_message":
                    self.handed[event.device].setdefault(event.message.id, event.at)
                self._saw(event.at, event.device, event.message)
        for load in history.loads:
            handed = self.handed[load.device]
            handed[load.message.id] = min(load.at, handed.get(load.message.id, math.inf))
            self._saw(load.at, load.device, load.message)
        self._windows: dict[str, tuple[float, float]] = {}

    def user_of(self, device: str) -> str:
        return self.history.devices[device].user

    def commit_window(self, message: Message) -> tuple[float, float]:
        """Between which two times it was committed, as far as its sender and receivers can tell."""
        window = self._windows.get(message.id)
        if window is None:
            attempts = self.attempts.get((message.sender, message.key), [])
            start = min((each.invoked_at for each in attempts), default=-math.inf)
            ends = [each.ended_at for each in attempts if each.outcome is Outcome.ACKNOWLEDGED]
            if message.id in self.seen:
                ends.append(self.seen[message.id][0])
            window = self._windows[message.id] = start, min(ends, default=math.inf)
        return window

    def is_owed(self, conversation_id: str, user: str, start: float) -> bool:
        """Whether this user was surely a member from then to the end."""
        return any(
            each.joined_by <= start and math.isinf(each.left_from)
            for each in self.memberships.get((conversation_id, user), ())
        )

    def is_member_in_the_end(self, conversation_id: str, user: str) -> bool:
        return self.is_owed(conversation_id, user, math.inf)

    def was_surely_member(self, conversation_id: str, user: str, start: float, end: float) -> bool:
        """Whether this user was a member all that time."""
        return any(
            each.joined_by <= start and end <= each.left_from
            for each in self.memberships.get((conversation_id, user), ())
        )

    def was_never_member(self, conversation_id: str, user: str, start: float, end: float) -> bool:
        """Whether this user was surely no member at any moment of that time."""
        return not any(
            each.joined_from <= end and start <= each.left_by
            for each in self.memberships.get((conversation_id, user), ())
        )

    def is_leaked(self, message: Message, user: str) -> bool:
        """Whether this user was surely no member when it was committed."""
        return self.was_never_member(message.conversation_id, user, *self.commit_window(message))

    def finding(
        self, kind: Kind, message_id: str, user: str, what: str, *, device: str = "", at: float | None = None
    ) -> Finding:
        message = self.store.get(message_id) or self.seen.get(message_id, (0, "", None))[2]
        attempts = self.attempts.get((message.sender, message.key), []) if message else []
        since = min((each.invoked_at for each in attempts), default=None)
        user = user or (self.user_of(device) if device else "")
        return Finding(kind, message_id, user, device, what, at, since)

    def _saw(self, at: float, device: str, message: Message) -> None:
        first = self.seen.get(message.id)
        if first is None or at < first[0]:
            self.seen[message.id] = at, device, message
