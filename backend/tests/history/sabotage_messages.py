"""Ways to break what is told of messages."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from tests.history.facts import Facts
from tests.history.records import Event, History, Loaded, Membership, Message, Outcome

# Gives what a finding must name; IndexError where the history has no place for it.
Sabotage = Callable[[History, random.Random], str]


def hand_overs(history: History) -> list[int]:
    return [place for place, event in enumerate(history.events) if event.name == "new_message"]


def any_hand_over(history: History, rng: random.Random) -> tuple[int, Message]:
    place = rng.choice(hand_overs(history))
    return place, message_at(history, place)


def lose(history: History, rng: random.Random) -> str:
    """One device never gets one message that it is owed."""
    place = rng.choice(owed_hand_overs(history))
    forget(history, place)
    return message_at(history, place, pop=True).id


def lose_page(history: History, rng: random.Random) -> str:
    """What one device missed while it was away does not come with the first messages that it gets again."""
    places = owed_hand_overs(history)
    opened = {stream.number: stream.cursor for stream in history.streams}
    replayed = [place for place in places if opened[history.events[place].stream] is not None]
    first = rng.choice(replayed)
    stream = history.events[first].stream
    page = [place for place in replayed if place >= first and history.events[place].stream == stream][:3]
    message = message_at(history, first)
    for place in reversed(page):
        forget(history, place)
        del history.events[place]
    return message.id


def forget(history: History, place: int) -> None:
    """Whose device it is has not got it by REST, either, and does not show it."""
    device, message = history.events[place].device, message_at(history, place)
    history.states[device].pop(message.id, None)
    history.loads = [load for load in history.loads if (load.device, load.message.id) != (device, message.id)]


def owed_hand_overs(history: History) -> list[int]:
    """Those to devices that are there in the end, of members who never left since."""
    facts = Facts(history)
    return [
        place
        for place in hand_overs(history)
        if history.devices[history.events[place].device].is_present
        and facts.is_owed(
            message_at(history, place).conversation_id,
            facts.user_of(history.events[place].device),
            facts.commit_window(message_at(history, place))[0],
        )
    ]


def stand_still(history: History, rng: random.Random) -> str:
    """From a message on, a device's last stream says nothing; REST tells the device of it all in the end."""
    last = {stream.device: stream.number for stream in history.streams}
    places = [place for place in owed_hand_overs(history) if history.events[place].stream in last.values()]
    place = rng.choice(places)
    device, number = history.events[place].device, history.events[place].stream
    untold = [event for event in history.events[place:] if event.stream == number]
    history.events[place:] = [event for event in history.events[place:] if event.stream != number]
    history.loads += [Loaded(99, device, event.message) for event in untold if event.message is not None]
    history.unheard[device] = sum(event.name == "new_message" for event in untold)
    return device


def message_at(history: History, place: int, *, pop: bool = False) -> Message:
    message = history.events[place].message
    assert message is not None
    if pop:
        del history.events[place]
    return message


def drop_from_store(history: History, rng: random.Random) -> str:
    """It is gone for everybody, as if it had never been."""
    acknowledged = [each.message_id for each in history.attempts if each.message_id]
    last = {message.conversation_id: message.id for message in history.store}
    gone = rng.choice([one for one in history.store if one.id in acknowledged and one.id not in last.values()])
    history.store.remove(gone)
    history.views = [view._replace(messages=tuple(each for each in view.messages if each.id != gone.id))
                     for view in history.views]  # fmt: skip
    for user, listing in history.listings.items():
        history.listings[user] = [
            listed._replace(unread=listed.unread - (listed.conversation_id == gone.conversation_id
                                                    and gone.seq > listed.last_read_seq))
            for listed in listing
        ]  # fmt: skip
    return gone.id


def refuse(history: History, rng: random.Random) -> str:
    _, message = any_hand_over(history, rng)
    history.attempts = [
        replace(each, outcome=Outcome.REFUSED, status=404, message_id=None) if each.key == message.key else each
        for each in history.attempts
    ]
    return message.id


def never_send(history: History, rng: random.Random) -> str:
    _, message = any_hand_over(history, rng)
    history.attempts = [each for each in history.attempts if each.key != message.key]
    return message.id


def hand_over_twice(history: History, rng: random.Random) -> str:
    place, message = any_hand_over(history, rng)
    history.events.insert(place + 1, history.events[place])
    return message.id


def store_twice(history: History, rng: random.Random) -> str:
    message = rng.choice(history.store)
    copy = replace(message, id=f"{message.id}-again", seq=message.seq + 1000)
    history.store.append(copy)
    for device in history.devices.values():
        if any(each.user == device.user for each in members_of(history, message)):
            history.loads.append(Loaded(99, device.name, copy))
            history.states.get(device.name, {})[copy.id] = copy
    return copy.id


def swap(history: History, rng: random.Random) -> str:
    """Two hand-overs that follow each other on one stream change places, each with its seq."""
    pairs = neighbours(history)
    first, second = rng.choice(pairs)
    one, other = history.events[first], history.events[second]
    history.events[first] = replace_event(other, at=one.at)
    history.events[second] = replace_event(one, at=other.at)
    assert one.message is not None
    return one.message.id


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


def jump(history: History, rng: random.Random) -> str:
    """From one message on, the seqs of a user are one too high, on all his devices alike."""
    place, message = any_hand_over(history, rng)
    event = history.events[place]
    user = history.devices[event.device].user
    assert event.seq is not None
    for at, other in enumerate(history.events):
        is_his = history.devices[other.device].user == user and other.seq is not None
        if is_his and other.seq is not None and other.seq >= event.seq:
            history.events[at] = replace_event(other, seq=other.seq + 1)
        elif history.devices[other.device].user == user and other.name == "heartbeat" and other.notice is not None:
            delivered = other.notice.seq or 0
            delivered += delivered >= event.seq
            history.events[at] = replace_event(other, notice=other.notice._replace(seq=delivered))
    for stream in history.streams:
        if history.devices[stream.device].user == user and stream.cursor is not None:
            seq = int(stream.cursor.partition(".")[2])
            stream.cursor = f"e.{seq + 1 if seq >= event.seq else seq}"
    return message.id


def exchange(history: History, rng: random.Random) -> str:
    """On one device two messages of different conversations stand at each other's seqs."""
    events = history.events
    on = {(event.device, event.seq) for event in events if event.message is not None and event.seq is not None}

    def is_seen_elsewhere(place: int) -> bool:
        device, seq = events[place].device, events[place].seq
        user = history.devices[device].user
        others = [each.name for each in history.devices.values() if each.user == user and each.name != device]
        return any((other, seq) in on for other in others)

    pairs = [
        (first, second)
        for first, second in neighbours(history)
        if is_seen_elsewhere(first)
        and is_seen_elsewhere(second)
        and message_at(history, first).conversation_id != message_at(history, second).conversation_id
    ]
    first, second = rng.choice(pairs)
    one, other = history.events[first], history.events[second]
    history.events[first] = replace_event(one, message=other.message)
    history.events[second] = replace_event(other, message=one.message)
    assert one.message is not None
    return one.message.id


def show_otherwise(history: History, rng: random.Random) -> str:
    device = rng.choice([name for name, state in history.states.items() if state])
    message = rng.choice(list(history.states[device].values()))
    history.states[device][message.id] = other_than(message, rng)
    return message.id


def other_than(message: Message, rng: random.Random) -> Message:
    others = [
        replace(message, content="other"),
        replace(message, rev=999),
        replace(message, is_deleted=not message.is_deleted),
        replace(message, reactions=(("+", 99),)),
    ]
    return rng.choice(others)


def leak(history: History, rng: random.Random) -> str:
    message = rng.choice(history.store)
    users = {each.user for each in members_of(history, message)}
    stranger = rng.choice([name for name, device in history.devices.items() if device.user not in users])
    history.loads.append(Loaded(99, stranger, message))
    return message.id


def members_of(history: History, message: Message) -> list[Membership]:
    return [each for each in history.memberships if each.conversation_id == message.conversation_id]
