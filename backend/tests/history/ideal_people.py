"""The people of a perfect server: who is in which group, whose device is on line, and what each is told."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.history.records import Device, Event, History, Listed, Loaded, Membership, Message, Notice, Stream, View

TICK_SECONDS = 0.01


class IdealPeople:
    """State of the server and of all devices, kept in step with the history that tells of it."""

    def __init__(
        self, seed: int, *, users: int = 3, devices: int = 2, groups: int = 2, members: int | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.now = 1.0
        self.history = History(seed)
        self.users = [f"user-{number}" for number in range(users)]
        self.inboxes: dict[str, list[str]] = {user: [] for user in self.users}
        self.changes = dict.fromkeys(self.users, 0)
        self.numbers: dict[str, int] = {}  # of a message in the store
        self.reacted: dict[str, set[str]] = {}
        self.groups: dict[str, list[str]] = {}
        self.everybody: dict[str, set[str]] = {}  # who was ever in a group
        self.last_seqs: dict[str, int] = {}
        self.revs: dict[str, int] = {}
        self.joined_seqs: dict[tuple[str, str], int] = {}
        self.positions: dict[tuple[str, str], int] = {}
        self.periods: dict[tuple[str, str], Membership] = {}
        self.streams: dict[str, Stream | None] = {}
        self.places: dict[str, int] = {}
        self.devices: dict[str, list[str]] = {}
        for number in range(groups):
            # One user always stays out of a group, so that there is somebody to leak to.
            begin = number % (users - 1)
            self._make_group(f"group-{number}", (self.users * 2)[begin:][: members or max(2, users - 1)])
        for user in self.users:
            self.devices[user] = [f"{user}/{number}" for number in range(devices)]
            for device in self.devices[user]:
                self.history.devices[device] = Device(device, user)
                self.history.states[device] = {}
                self.history.positions[device] = {}
                self.places[device] = 0
                self.streams[device] = None
                self.connect(device)

    def tick(self) -> float:
        self.now += TICK_SECONDS
        return self.now

    # --- Groups ----------------------------------------------------------------------------------

    def remove_or_add(self) -> None:
        """Somebody leaves a group, or whoever left it is let in again; the first member stays."""
        group = self.rng.choice(list(self.groups))
        away = sorted(self.everybody[group] - set(self.groups[group]))
        if away:
            self.add(group, self.rng.choice(away))
        elif len(self.groups[group]) > 1:
            self.remove(group, self.rng.choice(self.groups[group][1:]))

    def remove(self, group: str, user: str) -> None:
        period = self.periods[group, user]
        period.left_from = self.tick()
        self.groups[group] = [each for each in self.groups[group] if each != user]
        self._update(group)
        self.tell_change(user, "conversation_updated", notice=Notice(group, rev=self.revs[group]))
        period.left_by = self.tick()
        del self.positions[group, user]
        for device, _ in self.on_line(user):
            self._refresh(device)

    def add(self, group: str, user: str) -> None:
        started = self.tick()
        self.groups[group] = [*self.groups[group], user]
        self.joined_seqs[group, user] = self.positions[group, user] = self.last_seqs[group]
        self._update(group)
        self._join(group, user, started)
        for each in self.groups[group]:
            for device, _ in self.on_line(each):
                self._refresh(device)

    def has_read(self, group: str, user: str, seq: int) -> bool:
        """Move a position forward, and what devices on line show of it."""
        if seq <= self.positions[group, user]:
            return False
        self.positions[group, user] = seq
        for member in self.groups[group]:
            for device, _ in self.on_line(member):
                self.history.positions[device][group, user] = seq
        return True

    def readers_of(self, message: Message) -> list[str]:
        group = message.conversation_id
        return [user for user in self.groups[group] if message.seq > self.joined_seqs[group, user]]

    def _make_group(self, group: str, users: list[str]) -> None:
        self.groups[group], self.everybody[group] = users, set(users)
        self.last_seqs[group], self.revs[group] = 0, 1
        for user in users:
            self.joined_seqs[group, user] = self.positions[group, user] = 0
            self._join(group, user, self.tick())

    def _join(self, group: str, user: str, started: float) -> None:
        self.periods[group, user] = Membership(group, user, started, self.tick())
        self.history.memberships.append(self.periods[group, user])

    def _update(self, group: str) -> None:
        self.revs[group] += 1
        for user in self.groups[group]:
            self.tell_change(user, "conversation_updated", notice=Notice(group, rev=self.revs[group]))

    # --- Devices ---------------------------------------------------------------------------------

    def connect(self, device: str) -> None:
        """Open a stream: the cursor, `connected`, what was missed, and what REST says of the rest."""
        has_cursor = any(stream.device == device for stream in self.history.streams)
        cursor = f"e.{self.places[device]}" if has_cursor else None
        stream = Stream(len(self.history.streams), device, cursor, self.tick(), 200)
        self.history.streams.append(stream)
        self.streams[device] = stream
        self.event(stream, "", seq=self.places[device])
        self.event(stream, "connected")
        self.catch_up(device, stream)
        self._refresh(device)

    def disconnect(self, device: str) -> None:
        stream = self.streams[device]
        if stream is not None:
            stream.ended_at = self.tick()
            self.streams[device] = None

    def leave_for_good(self, device: str) -> None:
        self.disconnect(device)
        self.history.devices[device] = replace(self.history.devices[device], is_present=False)
        self.history.states.pop(device, None)
        self.history.positions.pop(device, None)

    def on_line(self, user: str) -> list[tuple[str, Stream]]:
        streams = ((device, self.streams.get(device)) for device in self.devices[user])
        return [(device, stream) for device, stream in streams if stream is not None]

    def catch_up(self, device: str, stream: Stream) -> None:
        user = self.history.devices[device].user
        for place in range(self.places[device], len(self.inboxes[user])):
            message = self._message(self.inboxes[user][place])
            if user in self.readers_of(message):
                self.event(stream, "new_message", seq=place + 1, message=message)
                self.history.states[device][message.id] = message
            else:
                self.event(stream, "", seq=place + 1)
        self.places[device] = len(self.inboxes[user])

    def _refresh(self, device: str) -> None:
        """Ask REST for everything, and forget what may no longer be seen."""
        user = self.history.devices[device].user
        state = self.history.states[device]
        visible: dict[str, Message] = {}
        for message_id in self.inboxes[user]:
            message = self._message(message_id)
            if user in self.groups[message.conversation_id] and user in self.readers_of(message):
                visible[message.id] = message
                if state.get(message.id) != message:
                    self.history.loads.append(Loaded(self.tick(), device, message))
        self.history.states[device] = visible
        self.history.positions[device] = {
            (group, reader): seq for (group, reader), seq in self.positions.items() if user in self.groups[group]
        }

    # --- What is told ----------------------------------------------------------------------------

    def beat(self) -> None:
        for device, stream in self.streams.items():
            if stream is not None:
                self.event(stream, "heartbeat", notice=Notice(seq=self.places[device]))

    def tell_change(
        self, user: str, name: str, *, message: Message | None = None, notice: Notice | None = None
    ) -> None:
        self.changes[user] += 1
        for _, stream in self.on_line(user):
            self.event(stream, name, message=message, change=self.changes[user], notice=notice)

    def event(
        self,
        stream: Stream,
        name: str,
        *,
        seq: int | None = None,
        message: Message | None = None,
        change: int | None = None,
        notice: Notice | None = None,
    ) -> None:
        epoch = None if seq is None else "e"
        self.history.events.append(
            Event(self.tick(), stream.device, stream.number, name, epoch, seq, message, "", change, notice)
        )

    # --- The end ---------------------------------------------------------------------------------

    def read_all(self) -> None:
        """What REST says: everybody's list, and every group to everybody."""
        last = {message.conversation_id: message for message in sorted(self.history.store, key=lambda one: one.seq)}
        for user in self.users:
            mine = [group for group, users in self.groups.items() if user in users]
            self.history.listings[user] = [self._listed(user, group, last.get(group)) for group in mine]
            self.history.views += [self._view(user, group) for group in mine]

    def _listed(self, user: str, group: str, last: Message | None) -> Listed:
        last_seq, position = self.last_seqs[group], self.positions[group, user]
        shown = last if last is not None and user in self.readers_of(last) else None
        positions = tuple((member, self.positions[group, member]) for member in self.groups[group])
        return Listed(group, last_seq, self.revs[group], shown, last_seq - position, position, positions)

    def _view(self, user: str, group: str) -> View:
        messages = [each for each in self.history.store if each.conversation_id == group]
        return View(user, group, tuple(each for each in messages if user in self.readers_of(each)))

    def _message(self, message_id: str) -> Message:
        return self.history.store[self.numbers[message_id]]
