"""Histories of a server without a fault, drawn from a seed: what a checker must find nothing in."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

from tests.history.records import Attempt, Device, Event, History, Loaded, Membership, Message, Outcome, Stream

TICK_SECONDS = 0.01


class IdealWorld:
    """Everything happens at once and in order; devices lose connections and come back with their cursor."""

    def __init__(self, seed: int, *, users: int = 3, devices: int = 2, groups: int = 2) -> None:
        self.rng = random.Random(seed)
        self.now = 1.0
        self.history = History(seed)
        self.users = [f"user-{number}" for number in range(users)]
        self.inboxes: dict[str, list[Message]] = {user: [] for user in self.users}
        self.groups: dict[str, list[str]] = {}
        self.streams: dict[str, Stream | None] = {}
        self.places: dict[str, int] = {}
        for number in range(groups):
            # One user always stays out of a group, so that there is somebody to leak to.
            members = self.users[number % 2 :][: max(2, users - 1)]
            self.groups[f"group-{number}"] = members
            self.history.memberships += [Membership(f"group-{number}", each, 0.1, 0.2) for each in members]
        for user in self.users:
            for number in range(devices):
                device = f"{user}/{number}"
                self.history.devices[device] = Device(device, user)
                self.history.states[device] = {}
                self.places[device] = 0
                self.streams[device] = None
                self.connect(device)

    def play(self, steps: int) -> History:
        """Draw acts, then bring every device back."""
        for _ in range(steps):
            acts: list[Callable[[], object]] = [self.send] * 3
            acts += [self.send_twice, self.refused, self.edit]
            self.rng.choice(acts)()
            device = self.rng.choice(list(self.streams))
            if self.rng.random() < 0.3:
                self.disconnect(device)
            elif self.streams[device] is None:
                self.connect(device)
        for device, stream in self.streams.items():
            if stream is None:
                self.connect(device)
        for group in self.groups:
            self.send(group)
        return self.history

    def tick(self) -> float:
        self.now += TICK_SECONDS
        return self.now

    # --- Senders ---------------------------------------------------------------------------------

    def send(self, group: str | None = None) -> Message:
        group = group or self.rng.choice(list(self.groups))
        message = self._new_message(group)
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
        self._attempt(self._new_message(self.rng.choice(list(self.groups))), self.tick(), Outcome.REFUSED)

    def edit(self) -> None:
        """Change what is stored; devices on line hear of it, the others ask when they are back."""
        if not self.history.store:
            return
        place = self.rng.randrange(len(self.history.store))
        old = self.history.store[place]
        new = Message(old.id, old.conversation_id, old.seq, old.rev + 100, old.sender, old.key, "edited", True)
        self.history.store[place] = new
        for user in self.groups[new.conversation_id]:
            inbox = self.inboxes[user]
            inbox[:] = [new if each.id == new.id else each for each in inbox]
            for device, stream in self._devices(user):
                if stream is not None:
                    self._event(stream, "message_edited", message=new)
                    self.history.states[device][new.id] = new

    def _new_message(self, group: str) -> Message:
        number = len(self.history.attempts)
        seq = 1 + sum(each.conversation_id == group for each in self.history.store)
        sender = self.rng.choice(self.groups[group])
        keys = (str(uuid.UUID(int=self.rng.getrandbits(128), version=4)) for _ in range(2))
        return Message(next(keys), group, seq, seq, sender, next(keys), f"text {number}")

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
        self.history.store.append(message)
        for user in self.groups[message.conversation_id]:
            self.inboxes[user].append(message)
            for device, stream in self._devices(user):
                if stream is not None:
                    self._catch_up(device, stream)

    # --- Devices ---------------------------------------------------------------------------------

    def connect(self, device: str) -> None:
        """Open a stream: the cursor, `connected`, what was missed, and what REST says of the rest."""
        has_cursor = any(stream.device == device for stream in self.history.streams)
        cursor = f"e.{self.places[device]}" if has_cursor else None
        stream = Stream(len(self.history.streams), device, cursor, self.tick(), 200)
        self.history.streams.append(stream)
        self.streams[device] = stream
        self._event(stream, "", seq=self.places[device])
        self._event(stream, "connected")
        self._catch_up(device, stream)
        for message in self.inboxes[self.history.devices[device].user]:
            if self.history.states[device].get(message.id) != message:
                self.history.states[device][message.id] = message
                self.history.loads.append(Loaded(self.tick(), device, message))

    def disconnect(self, device: str) -> None:
        stream = self.streams[device]
        if stream is not None:
            stream.ended_at = self.tick()
            self.streams[device] = None

    def _catch_up(self, device: str, stream: Stream) -> None:
        inbox = self.inboxes[self.history.devices[device].user]
        for place in range(self.places[device], len(inbox)):
            self._event(stream, "new_message", seq=place + 1, message=inbox[place])
            self.history.states[device][inbox[place].id] = inbox[place]
        self.places[device] = len(inbox)

    def _event(self, stream: Stream, name: str, *, seq: int | None = None, message: Message | None = None) -> None:
        epoch = None if seq is None else "e"
        self.history.events.append(Event(self.tick(), stream.device, stream.number, name, epoch, seq, message))

    def _devices(self, user: str) -> list[tuple[str, Stream | None]]:
        return [(name, self.streams[name]) for name, each in self.history.devices.items() if each.user == user]


def ideal_history(seed: int, *, steps: int = 12, users: int = 3, devices: int = 2) -> History:
    """A history in which nothing is wrong."""
    return IdealWorld(seed, users=users, devices=devices).play(steps)
