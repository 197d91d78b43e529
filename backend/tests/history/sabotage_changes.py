"""Ways to break what is told of changes, typing and reading, and how requests are answered."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import replace

from tests.history.facts import Facts
from tests.history.records import Alteration, Attempt, Event, History, Message, Notice, Outcome
from tests.history.sabotage_messages import members_of

# --- Changes -----------------------------------------------------------------------------------------


def counted(history: History) -> dict[int, list[int]]:
    """The places of counted changes, by stream, of streams that are open to the end."""
    lasting = {stream.number for stream in history.streams if math.isinf(stream.ended_at)}
    places: dict[int, list[int]] = defaultdict(list)
    for place, event in enumerate(history.events):
        if event.change is not None and event.stream in lasting:
            places[event.stream].append(place)
    return places


def miss_change(history: History, rng: random.Random) -> str:
    """One stream goes from one change to the next but one."""
    place = rng.choice([place for places in counted(history).values() for place in places[1:-1]])
    return f"change {history.events.pop(place).change} "


def miss_first_change(history: History, rng: random.Random) -> str:
    """One stream begins with the second change after it was connected; another device of the user has the first."""
    facts, events = Facts(history), history.events
    connected = {event.stream: event.at for event in events if event.name == "connected"}
    users = defaultdict(set)
    for event in events:
        users[facts.user_of(event.device), event.change].add(event.device)
    firsts = []
    for stream, places in counted(history).items():
        event = events[places[0]]
        born = facts.altered_from.get((event.name, subject(event)), -math.inf)
        if len(places) > 1 and born > connected[stream] and len(users[facts.user_of(event.device), event.change]) > 1:
            firsts.append(places[0])
    return f"change {history.events.pop(rng.choice(firsts)).change} "


def subject(event: Event) -> str:
    if event.message is not None:
        return event.message.id
    return event.notice.message_id if event.notice else ""


def mistake_change(history: History, rng: random.Random) -> str:
    """A change of one number is another one on another device."""
    events = history.events
    users = defaultdict(list)
    for place, event in enumerate(events):
        if event.change is not None and event.notice is not None:
            users[history.devices[event.device].user, event.change].append(place)
    place = rng.choice(rng.choice([places for places in users.values() if len(places) > 1]))
    notice = events[place].notice
    assert notice is not None
    events[place] = events[place]._replace(notice=notice._replace(rev=999))
    return f"change {events[place].change} was"


def leak_change(history: History, rng: random.Random) -> str:
    message, stream = stranger_to(history, rng)
    notice = Notice(message.conversation_id, message.id, rev=99)
    tell(history, stream, Event(99, "", 0, "reaction_update", change=1000, notice=notice))
    return message.id


def leak_edit(history: History, rng: random.Random) -> str:
    message, stream = stranger_to(history, rng)
    tell(history, stream, Event(99, "", 0, "message_edited", message=message))
    return message.id


def stranger_to(history: History, rng: random.Random) -> tuple[Message, int]:
    """A message, and the last stream of somebody who was never where it was sent."""
    message = rng.choice(history.store)
    users = {each.user for each in members_of(history, message)}
    strangers = {name for name, device in history.devices.items() if device.user not in users}
    return message, rng.choice([stream.number for stream in history.streams if stream.device in strangers])


def tell(history: History, stream: int, event: Event) -> None:
    history.events.append(event._replace(device=history.streams[stream].device, stream=stream))


def boast(history: History, rng: random.Random) -> str:
    """A heartbeat says that more was delivered than was."""
    place = rng.choice([place for place, event in enumerate(history.events) if event.name == "heartbeat"])
    event = history.events[place]
    assert event.notice is not None
    assert event.notice.seq is not None
    history.events[place] = event._replace(notice=Notice(seq=event.notice.seq + 1))
    return f"seq {event.notice.seq + 1} "


# --- What was acknowledged, and is not there ---------------------------------------------------------


def take_back_edit(history: History, rng: random.Random) -> str:
    message = rng.choice([one for one in history.store if one.is_edited and not one.is_deleted])
    sent = next(each for each in history.attempts if each.key == message.key)
    return store_instead(history, message, replace(message, content=sent.content, is_edited=False))


def take_back_newer_edit(history: History, rng: random.Random) -> str:
    """The edit that is stored is older than one that was acknowledged."""
    message = rng.choice([one for one in history.store if one.is_edited and not one.is_deleted])
    history.alterations.append(Alteration("edit", message.id, message.sender, "newer", 98, 99, 200))
    return message.id


def edit_unasked(history: History, rng: random.Random) -> str:
    message = rng.choice([one for one in history.store if not one.is_deleted])
    return store_instead(history, message, replace(message, content="unasked", is_edited=True))


def take_back_delete(history: History, rng: random.Random) -> str:
    message = rng.choice([one for one in history.store if one.is_deleted])
    sent = next(each for each in history.attempts if each.key == message.key)
    return store_instead(history, message, replace(message, content=sent.content, is_edited=False, is_deleted=False))


def delete_unasked(history: History, rng: random.Random) -> str:
    message = rng.choice([one for one in history.store if not one.is_deleted])
    return store_instead(history, message, replace(message, content="", is_deleted=True, reactions=()))


def take_back_reaction(history: History, rng: random.Random) -> str:
    message = rng.choice([one for one in history.store if one.reactions])
    return store_instead(history, message, replace(message, reactions=()))


def react_unasked(history: History, rng: random.Random) -> str:
    message = rng.choice([one for one in history.store if not one.is_deleted])
    return store_instead(history, message, replace(message, reactions=(("?", 1),)))


def store_instead(history: History, message: Message, other: Message) -> str:
    """As everybody in the end sees it."""
    history.store[history.store.index(message)] = other
    for state in history.states.values():
        if message.id in state:
            state[message.id] = other
    history.views = [
        view._replace(messages=tuple(other if each == message else each for each in view.messages))
        for view in history.views
    ]
    for user, listing in history.listings.items():
        history.listings[user] = [
            listed._replace(last_message=other) if listed.last_message == message else listed for listed in listing
        ]
    return message.id


# --- Answers -----------------------------------------------------------------------------------------


def silence_send(history: History, rng: random.Random) -> str:
    place = rng.randrange(len(history.attempts))
    attempt = history.attempts[place]
    history.attempts[place] = replace(
        attempt, outcome=Outcome.UNKNOWN, status=0, message_id=None, is_silent=True, ended_at=attempt.ended_at + 10
    )
    return f"send {attempt.key} had no answer"


def silence_call(history: History, rng: random.Random) -> str:
    place = rng.randrange(len(history.calls))
    call = history.calls[place]
    history.calls[place] = call._replace(status=0, is_silent=True, ended_at=call.ended_at + 10)
    return f"{call.route} had no answer"


def silence_stream(history: History, rng: random.Random) -> str:
    stream = rng.choice([one for one in history.streams if not math.isinf(one.ended_at)])
    stream.silent_since = stream.ended_at - 25
    return f"stream {stream.number} was silent"


def refuse_member(history: History, rng: random.Random) -> str:
    message = rng.choice(history.store)
    user = rng.choice([each.user for each in members_of(history, message) if math.isinf(each.left_from)])
    group = message.conversation_id
    history.attempts.append(Attempt(user, "a-key", group, "text", 98, 99, Outcome.REFUSED, 404))
    return f"send a-key to conversation {group} was answered 404"


def fail(history: History, rng: random.Random) -> str:
    place = rng.randrange(len(history.calls))
    history.calls[place] = history.calls[place]._replace(status=500)
    return f"{history.calls[place].route}"


# --- Typing and receipts -----------------------------------------------------------------------------


def type_unasked(history: History, rng: random.Random) -> str:
    event = rng.choice([one for one in history.events if one.name == "typing_status"])
    assert event.notice is not None
    group, user = event.notice.conversation_id, event.notice.user
    history.calls = [
        each._replace(conversation_id="elsewhere") if (each.conversation_id, each.user) == (group, user) else each
        for each in history.calls
    ]
    return f"typing_status of {user} in conversation {group}"


def type_to_stranger(history: History, rng: random.Random) -> str:
    call = rng.choice([one for one in history.calls if "typing" in one.route])
    members = {each.user for each in history.memberships if each.conversation_id == call.conversation_id}
    strangers = {name for name, device in history.devices.items() if device.user not in members}
    stream = rng.choice([one.number for one in history.streams if one.device in strangers])
    tell(history, stream, Event(99, "", 0, "typing_status", notice=Notice(call.conversation_id, user=call.user)))
    return f"typing_status of {call.user} in conversation {call.conversation_id}, of which he is no member"


def type_to_oneself(history: History, rng: random.Random) -> str:
    call = rng.choice([one for one in history.calls if "typing" in one.route])
    stream = rng.choice([one.number for one in history.streams if history.devices[one.device].user == call.user])
    tell(history, stream, Event(99, "", 0, "typing_status", notice=Notice(call.conversation_id, user=call.user)))
    return f"his own typing in conversation {call.conversation_id}"


def read_unasked(history: History, rng: random.Random) -> str:
    """A receipt says more than the reader."""
    place = rng.choice([place for place, event in enumerate(history.events) if event.name == "read_receipt"])
    notice = history.events[place].notice
    assert notice is not None
    history.events[place] = history.events[place]._replace(notice=notice._replace(seq=1000))
    return f"read_receipt of {notice.user} in conversation {notice.conversation_id}"
