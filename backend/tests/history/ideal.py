"""Histories of a server without a fault, drawn from a seed: what a checker must find nothing in."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace

from tests.history.ideal_people import IdealPeople
from tests.history.records import Alteration, AlterationKind, Attempt, Call, History, Message, Notice, Outcome, ReadMark

EMOJI = "+"


class IdealWorld(IdealPeople):
    """Everything happens at once and in order; devices lose connections and come back with their cursor."""

    def play(self, steps: int) -> IdealWorld:
        """Draw acts, then bring every device back but those that left for good, and read everything by REST."""
        for _ in range(steps):
            acts: list[Callable[[], object]] = [self.send] * 4
            acts += [self.send_twice, self.refused, self.edit, self.edit, self.delete, self.react, self.react]
            acts += [self.read, self.read, self.type, self.remove_or_add]
            self.rng.choice(acts)()
            device = self.rng.choice(list(self.streams))
            if self.rng.random() < 0.3:
                self.disconnect(device)
            elif self.streams[device] is None and self.history.devices[device].is_present:
                self.connect(device)
            if self.rng.random() < 0.02:
                self.leave_for_good(device)
        for group, users in self.groups.items():
            for user in sorted(self.everybody[group] - set(users)):
                self.add(group, user)
        for device, stream in self.streams.items():
            if stream is None and self.history.devices[device].is_present:
                self.connect(device)
        for group in self.groups:
            last = self.send(group)
            self.react(last, last.sender)
        self.edit()
        self.delete()
        self.read()
        self.type()
        self.beat()
        self.read_all()
        return self

    # --- Senders ---------------------------------------------------------------------------------

    def send(self, group: str | None = None) -> Message:
        message = self._new_message(group or self.rng.choice(list(self.groups)))
        started = self.tick()
        self._commit(message)
        self._attempt(message, started, Outcome.ACKNOWLEDGED)
        return message

    def send_twice(self) -> None:
        """The first answer is lost, after the commit or before it."""
        message = self._new_message(self.rng.choice(list(self.groups)))
        was_committed = self.rng.random() < 0.5
        for outcome in (Outcome.UNKNOWN, Outcome.ACKNOWLEDGED):
            started = self.tick()
            if was_committed == (outcome is Outcome.UNKNOWN):
                self._commit(message)
            self._attempt(message, started, outcome)

    def refused(self) -> None:
        """Somebody writes to a group that he is no member of."""
        group = self.rng.choice(list(self.groups))
        strangers = sorted(set(self.users) - set(self.groups[group]))
        if strangers:
            message = replace(self._new_message(group), sender=self.rng.choice(strangers))
            self._attempt(message, self.tick(), Outcome.REFUSED)

    def _new_message(self, group: str) -> Message:
        keys = (str(uuid.UUID(int=self.rng.getrandbits(128), version=4)) for _ in range(2))
        text = f"text {len(self.history.attempts)}"
        return Message(
            id=next(keys),
            conversation_id=group,
            seq=self.last_seqs[group] + 1,
            rev=self.revs[group] + 1,
            sender=self.rng.choice(self.groups[group]),
            key=next(keys),
            content=text,
        )

    def _attempt(self, message: Message, started: float, outcome: Outcome) -> None:
        is_known = outcome is Outcome.ACKNOWLEDGED
        attempt = Attempt(
            sender=message.sender,
            key=message.key,
            conversation_id=message.conversation_id,
            content=message.content,
            invoked_at=started,
            ended_at=self.tick(),
            outcome=outcome,
            status={Outcome.ACKNOWLEDGED: 201, Outcome.REFUSED: 404, Outcome.UNKNOWN: 0}[outcome],
            message_id=message.id if is_known else None,
        )
        self.history.attempts.append(attempt)

    def _commit(self, message: Message) -> None:
        group = message.conversation_id
        self.last_seqs[group], self.revs[group] = message.seq, message.rev
        self.numbers[message.id] = len(self.history.store)
        self.history.store.append(message)
        self.has_read(group, message.sender, message.seq)
        for user in self.groups[group]:
            self.inboxes[user].append(message.id)
            for device, stream in self.on_line(user):
                self.catch_up(device, stream)

    # --- What is done to messages ----------------------------------------------------------------

    def edit(self) -> None:
        message = self._any_message()
        if message is not None and not message.is_deleted and message.sender in self.readers_of(message):
            content = f"edited {self.tick()}"
            self._alter("edit", message, message.sender, content, replace(message, content=content, is_edited=True))

    def delete(self) -> None:
        message = self._any_message()
        if message is not None and message.sender in self.readers_of(message):
            gone = replace(message, content="", is_deleted=True, reactions=())
            self._alter("delete", message, message.sender, "", message if message.is_deleted else gone)

    def react(self, message: Message | None = None, user: str | None = None) -> None:
        message = message or self._any_message()
        readers = self.readers_of(message) if message else []
        if message is None or message.is_deleted or not readers:
            return
        user = user or self.rng.choice(readers)
        is_new = user not in self.reacted.setdefault(message.id, set())
        self.reacted[message.id].add(user)
        reactions = ((EMOJI, len(self.reacted[message.id])),)
        self._alter("react", message, user, EMOJI, replace(message, reactions=reactions) if is_new else message)

    def _any_message(self) -> Message | None:
        return self.rng.choice(self.history.store) if self.history.store else None

    def _alter(self, kind: AlterationKind, old: Message, user: str, content: str, new: Message) -> None:
        """Change what is stored; devices on line hear of it, the others ask when they are back."""
        started = self.tick()
        if new != old:
            self._store_and_tell(kind, new)
        ended = self.tick()
        self.history.alterations.append(Alteration(kind, old.id, user, content, started, ended, 200))
        self.history.calls.append(Call(f"({kind})", user, started, ended, 200))

    def _store_and_tell(self, kind: AlterationKind, message: Message) -> None:
        group = message.conversation_id
        self.revs[group] += 1
        message = replace(message, rev=self.revs[group])
        self.history.store[self.numbers[message.id]] = message
        readers = self.readers_of(message)
        part = Notice(group, message.id, rev=message.rev)
        for user in self.groups[group]:
            if user not in readers:
                self.tell_change(user, "conversation_updated", notice=Notice(group, rev=message.rev))
                continue
            if kind == "edit":
                self.tell_change(user, "message_edited", message=message)
            else:
                self.tell_change(user, {"delete": "message_deleted"}.get(kind, "reaction_update"), notice=part)
            for device, _ in self.on_line(user):
                self.history.states[device][message.id] = message

    # --- Reading and typing ----------------------------------------------------------------------

    def read(self) -> None:
        group = self.rng.choice(list(self.groups))
        last_seq = self.last_seqs[group]
        behind = [each for each in self.groups[group] if self.positions[group, each] < last_seq]
        user, seq = self.rng.choice(behind or self.groups[group]), self.rng.randint(last_seq // 2, last_seq)
        started = self.tick()
        if self.has_read(group, user, seq):
            self._tell_others("read_receipt", Notice(group, user=user, seq=seq), self.groups[group])
        ended = self.tick()
        self.history.read_marks.append(ReadMark(group, user, seq, started, ended, self.positions[group, user]))
        self.history.calls.append(Call("POST /conversations/{}/read", user, started, ended, 200, conversation_id=group))

    def type(self) -> None:
        group = self.rng.choice(list(self.groups))
        user = self.rng.choice(self.groups[group])
        started = self.tick()
        others = [each for each in self.groups[group] if each != user]
        self._tell_others("typing_status", Notice(group, user=user), others)
        route = "POST /conversations/{}/typing"
        self.history.calls.append(Call(route, user, started, self.tick(), 204, conversation_id=group))

    def _tell_others(self, name: str, notice: Notice, users: Iterable[str]) -> None:
        for user in users:
            for _, stream in self.on_line(user):
                self.event(stream, name, notice=notice)


def ideal_history(seed: int, *, steps: int = 12, users: int = 3, devices: int = 2, groups: int = 2) -> History:
    """A history in which nothing is wrong."""
    return IdealWorld(seed, users=users, devices=devices, groups=groups).play(steps).history
