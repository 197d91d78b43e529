"""What REST says in the end: to all members the same, lists that agree with what they list, and who has read what."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate, pairwise

from tests.history.facts import Facts
from tests.history.findings import Finding, Kind
from tests.history.message_checks import differences
from tests.history.records import LARGE_GROUP_MEMBERS, Listed, Message, ReadMark, View


def check_views(facts: Facts) -> Iterator[Finding]:
    checks = _ViewChecks(facts)
    for view in facts.history.views:
        yield from checks.view(view)
    for user, listing in facts.history.listings.items():
        yield from checks.listing(user, listing)
    yield from checks.agreement()
    yield from checks.devices()
    yield from checks.marks_answered()


class _ViewChecks:
    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.conversations: dict[str, list[Message]] = defaultdict(list)
        for message in sorted(facts.history.store, key=lambda one: one.seq):
            self.conversations[message.conversation_id].append(message)
        self.marks: dict[tuple[str, str], list[ReadMark]] = defaultdict(list)
        for mark in facts.history.read_marks:
            self.marks[mark.conversation_id, mark.user].append(mark)
        # How far everybody has read, as his own list says.
        self.positions: dict[str, dict[str, int]] = defaultdict(dict)
        for user, listing in facts.history.listings.items():
            for listed in listing:
                if facts.is_member_in_the_end(listed.conversation_id, user):
                    self.positions[listed.conversation_id][user] = listed.last_read_seq

    def view(self, view: View) -> Iterator[Finding]:
        """A conversation as one member reads it, against what its owner reads."""
        facts, user = self.facts, view.user
        for one, other in pairwise(view.messages):
            if other.seq <= one.seq:
                what = f"REST gives seq {other.seq} of its conversation after {one.seq}"
                yield facts.finding(Kind.NON_MONOTONIC, other.id, user, what)
        for message in view.messages:
            stored = facts.store.get(message.id)
            if stored is None:
                yield facts.finding(Kind.DIVERGED, message.id, user, f"REST shows message {message.id} to him alone")
            elif wrong := differences(message, stored):
                yield facts.finding(Kind.DIVERGED, message.id, user, f"by REST he reads {wrong}")
            elif facts.is_leaked(stored, user):
                yield facts.finding(Kind.LEAKED, message.id, user, "is no member, and reads it by REST")
        shown = {message.id for message in view.messages}
        for message in self.conversations[view.conversation_id]:
            is_owed = facts.is_owed(view.conversation_id, user, facts.commit_window(message)[0])
            if is_owed and message.id not in shown:
                yield facts.finding(Kind.DIVERGED, message.id, user, "REST does not show it to him")

    def listing(self, user: str, listing: list[Listed]) -> Iterator[Finding]:
        """The list of one user: whole, without what is not his, and true."""
        facts = self.facts
        listed_ids = [listed.conversation_id for listed in listing]
        for conversation_id, members in facts.members.items():
            if user not in members:
                continue
            count = listed_ids.count(conversation_id)
            if facts.is_member_in_the_end(conversation_id, user) and count != 1:
                what = f"his list has conversation {conversation_id} {count} times"
                yield facts.finding(Kind.DIVERGED, "", user, what)
        for listed in listing:
            if listed.conversation_id not in facts.members:
                continue  # of a scenario's own: who is in it is not written down
            if not facts.is_member_in_the_end(listed.conversation_id, user):
                what = f"his list has conversation {listed.conversation_id}, of which he is no member"
                yield facts.finding(Kind.LEAKED, "", user, what)
                continue
            yield from self._listed(user, listed)
            yield from self._position(user, listed)

    def agreement(self) -> Iterator[Finding]:
        """Of one conversation all lists say the same."""
        said: dict[str, tuple[str, Listed]] = {}
        for user, listing in self.facts.history.listings.items():
            for listed in listing:
                other, first = said.setdefault(listed.conversation_id, (user, listed))
                if listed.rev != first.rev:
                    what = f"conversation {listed.conversation_id} is at rev {listed.rev}, to {other} at {first.rev}"
                    yield self.facts.finding(Kind.DIVERGED, "", user, what)
                for reader, seq in listed.positions:
                    own = self.positions[listed.conversation_id].get(reader, seq)
                    if seq != own:
                        what = (
                            f"in conversation {listed.conversation_id} {reader} has read up to {seq}, to himself {own}"
                        )
                        yield self.facts.finding(Kind.DIVERGED, "", user, what)

    def devices(self) -> Iterator[Finding]:
        """How far devices show others to have read."""
        for device, positions in self.facts.history.positions.items():
            user = self.facts.user_of(device)
            for conversation_id, readers in self.positions.items():
                if user not in readers:
                    continue
                for reader, seq in readers.items():
                    shown = positions.get((conversation_id, reader), 0)
                    is_told = reader == user or len(readers) <= LARGE_GROUP_MEMBERS
                    if shown > seq or (is_told and shown < seq):
                        what = f"in conversation {conversation_id} it shows {reader} at {shown}, REST at {seq}"
                        yield self.facts.finding(Kind.DIVERGED, "", user, what, device=device)

    def marks_answered(self) -> Iterator[Finding]:
        """Who says to have read up to a message that was there has done so by the answer."""
        ends: dict[str, list[float]] = defaultdict(list)
        highest: dict[str, list[int]] = {}
        for conversation_id in {mark.conversation_id for mark in self.facts.history.read_marks}:
            known = sorted(
                (self.facts.commit_window(each)[1], each.seq) for each in self.conversations[conversation_id]
            )
            ends[conversation_id] = [end for end, _ in known]
            highest[conversation_id] = [0, *accumulate((seq for _, seq in known), max)]
        for mark in self.facts.history.read_marks:
            there = highest[mark.conversation_id][bisect_left(ends[mark.conversation_id], mark.invoked_at)]
            if mark.answered is not None and mark.answered < min(mark.seq, there):
                what = f"said to have read conversation {mark.conversation_id} up to {mark.seq}; {mark.answered} it was"
                yield self.facts.finding(Kind.ABORTED, "", mark.user, what, at=mark.ended_at)

    def _listed(self, user: str, listed: Listed) -> Iterator[Finding]:
        messages = self.conversations[listed.conversation_id]
        where = f"in his list conversation {listed.conversation_id}"
        last = messages[-1] if messages else None
        last_seq = last.seq if last else 0
        if listed.last_seq != last_seq:
            what = f"{where} ends at seq {listed.last_seq}, not {last_seq}"
            yield self.facts.finding(Kind.DIVERGED, "", user, what)
        if listed.last_message is None:
            if last and self.facts.is_owed(listed.conversation_id, user, self.facts.commit_window(last)[0]):
                yield self.facts.finding(Kind.DIVERGED, last.id, user, f"{where} has no last message")
        elif last is None or (wrong := differences(listed.last_message, last)):
            what = f"{where} shows another last message: {wrong if last else 'there is none'}"
            yield self.facts.finding(Kind.DIVERGED, listed.last_message.id, user, what)
        unread = sum(message.seq > listed.last_read_seq for message in messages)
        if listed.unread != unread:
            what = f"{where} has {listed.unread} unread, {unread} come after seq {listed.last_read_seq}"
            yield self.facts.finding(Kind.DIVERGED, "", user, what)

    def _position(self, user: str, listed: Listed) -> Iterator[Finding]:
        """What was acknowledged, and one's own messages, are read; what nobody said is not."""
        marks = self.marks[listed.conversation_id, user]
        messages = self.conversations[listed.conversation_id]
        own = max((message.seq for message in messages if message.sender == user), default=0)
        known = max((mark.answered for mark in marks if mark.answered is not None), default=0)
        where = f"in conversation {listed.conversation_id} he has read up to {listed.last_read_seq}"
        if listed.last_read_seq < known:
            yield self.facts.finding(Kind.ABORTED, "", user, f"{where}; {known} was acknowledged")
        elif listed.last_read_seq < own:
            yield self.facts.finding(Kind.DIVERGED, "", user, f"{where}, and has sent seq {own}")
        most = max([own, *(mark.seq for mark in marks), self._before_joining(user, listed.conversation_id)])
        # A run that writes no mark down may have readers of its own.
        if listed.last_read_seq > most and self.facts.history.read_marks:
            yield self.facts.finding(Kind.UNEXPECTED, "", user, f"{where}; he said no more than {most}")

    def _before_joining(self, user: str, conversation_id: str) -> int:
        """The newest message that there may have been when he was last let in: it counts as read."""
        joined_by = max(each.joined_by for each in self.facts.memberships[conversation_id, user])
        messages = self.conversations[conversation_id]
        return max((each.seq for each in messages if self.facts.commit_window(each)[0] <= joined_by), default=0)
