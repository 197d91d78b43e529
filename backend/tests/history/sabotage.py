"""Ways to break a history: each breaks one promise at one place, and tells with which message."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from tests.history.findings import Kind
from tests.history.records import Event, History, Loaded, Membership, Message, Outcome

Sabotage = Callable[[History, random.Random], Message]


def hand_overs(history: History) -> list[int]:
    return [place for place, event in enumerate(history.events) if event.name == "new_message"]


def any_hand_over(history: History, rng: random.Random) -> tuple[int, Message]:
    place = rng.choice(hand_overs(history))
    message = history.events[place].message
    assert message is not None
    return place, message


def lose(history: History, rng: random.Random) -> Message:
    """One device never gets one message, and its later seqs close the hole."""
    place, message = any_hand_over(history, rng)
    device = history.events[place].device
    del history.events[place]
    del history.states[device][message.id]
    history.loads = [load for load in history.loads if (load.device, load.message.id) != (device, message.id)]
    return message


def drop_from_store(history: History, rng: random.Random) -> Message:
    acknowledged = [each.message_id for each in history.attempts if each.message_id]
    gone = rng.choice([message for message in history.store if message.id in acknowledged])
    history.store.remove(gone)
    return gone


def refuse(history: History, rng: random.Random) -> Message:
    _, message = any_hand_over(history, rng)
    history.attempts = [
        replace(each, outcome=Outcome.REFUSED, status=404, message_id=None) if each.key == message.key else each
        for each in history.attempts
    ]
    return message


def never_send(history: History, rng: random.Random) -> Message:
    _, message = any_hand_over(history, rng)
    history.attempts = [each for each in history.attempts if each.key != message.key]
    return message


def hand_over_twice(history: History, rng: random.Random) -> Message:
    place, message = any_hand_over(history, rng)
    history.events.insert(place + 1, history.events[place])
    return message


def store_twice(history: History, rng: random.Random) -> Message:
    message = rng.choice(history.store)
    copy = replace(message, id=f"{message.id}-again", seq=message.seq + 1000)
    history.store.append(copy)
    for device in history.devices.values():
        if any(each.user == device.user for each in members_of(history, message)):
            history.loads.append(Loaded(99, device.name, copy))
            history.states[device.name][copy.id] = copy
    return copy


def swap(history: History, rng: random.Random) -> Message:
    """Two hand-overs that follow each other on one stream change places, each with its seq."""
    pairs = neighbours(history)
    first, second = rng.choice(pairs)
    one, other = history.events[first], history.events[second]
    history.events[first] = replace_event(other, at=one.at)
    history.events[second] = replace_event(one, at=other.at)
    assert one.message is not None
    return one.message


def neighbours(history: History) -> list[tuple[int, int]]:
    last: dict[int, int] = {}
    pairs = []
    for place in hand_overs(history):
        stream = history.events[place].stream
        if stream in last:
            pairs.append((last[stream], place))
        last[stream] = place
    return pairs


def replace_event(event: Event, **fields: object) -> Event:
    return event._replace(**fields)  # type: ignore[arg-type]


def jump(history: History, rng: random.Random) -> Message:
    """From one message on, the seqs of a user are one too high, on all his devices alike."""
    place, message = any_hand_over(history, rng)
    event = history.events[place]
    user = history.devices[event.device].user
    assert event.seq is not None
    for at, other in enumerate(history.events):
        is_his = history.devices[other.device].user == user and other.seq is not None
        if is_his and other.seq is not None and other.seq >= event.seq:
            history.events[at] = replace_event(other, seq=other.seq + 1)
    for stream in history.streams:
        if history.devices[stream.device].user == user and stream.cursor is not None:
            seq = int(stream.cursor.partition(".")[2])
            stream.cursor = f"e.{seq + 1 if seq >= event.seq else seq}"
    return message


def exchange(history: History, rng: random.Random) -> Message:
    """On one device two messages of different conversations stand at each other's seqs."""
    pairs = [
        (first, second)
        for first, second in neighbours(history)
        if conversation_at(history, first) != conversation_at(history, second)
    ]
    first, second = rng.choice(pairs)
    one, other = history.events[first], history.events[second]
    history.events[first] = replace_event(one, message=other.message)
    history.events[second] = replace_event(other, message=one.message)
    assert one.message is not None
    return one.message


def conversation_at(history: History, place: int) -> str:
    message = history.events[place].message
    assert message is not None
    return message.conversation_id


def show_otherwise(history: History, rng: random.Random) -> Message:
    device = rng.choice([name for name, state in history.states.items() if state])
    message = rng.choice(list(history.states[device].values()))
    wrong = rng.choice([{"content": "other"}, {"rev": 999}, {"is_deleted": True}, {"reactions": (("+", 1),)}])
    history.states[device][message.id] = replace(message, **wrong)  # type: ignore[arg-type]
    return message


def leak(history: History, rng: random.Random) -> Message:
    message = rng.choice(history.store)
    users = {each.user for each in members_of(history, message)}
    stranger = rng.choice([name for name, device in history.devices.items() if device.user not in users])
    history.loads.append(Loaded(99, stranger, message))
    return message


def members_of(history: History, message: Message) -> list[Membership]:
    return [each for each in history.memberships if each.conversation_id == message.conversation_id]


SABOTAGE: list[tuple[Kind, Sabotage]] = [
    (Kind.LOST, lose),
    (Kind.ABORTED, drop_from_store),
    (Kind.ABORTED, refuse),
    (Kind.UNEXPECTED, never_send),
    (Kind.DOUBLED, hand_over_twice),
    (Kind.DOUBLED, store_twice),
    (Kind.NON_MONOTONIC, swap),
    (Kind.SKIPPED, jump),
    (Kind.INCONSISTENT, exchange),
    (Kind.DIVERGED, show_otherwise),
    (Kind.LEAKED, leak),
]
NAMES = [sabotage.__name__ for _, sabotage in SABOTAGE]
