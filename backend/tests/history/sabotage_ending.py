"""Ways to break what REST says in the end."""

from __future__ import annotations

import math
import random

from tests.history.facts import Facts
from tests.history.records import History, Listed, Message
from tests.history.sabotage_messages import other_than

# --- Views -------------------------------------------------------------------------------------------


def hide(history: History, rng: random.Random) -> str:
    place, message = any_shown(history, rng)
    view = history.views[place]
    history.views[place] = view._replace(messages=tuple(each for each in view.messages if each != message))
    return message.id


def show_to_one(history: History, rng: random.Random) -> str:
    """One member reads a message in another state."""
    place, message = any_shown(history, rng)
    view, other = history.views[place], other_than(message, rng)
    history.views[place] = view._replace(messages=tuple(other if each == message else each for each in view.messages))
    return message.id


def turn_round(history: History, rng: random.Random) -> str:
    place = rng.choice([place for place, view in enumerate(history.views) if len(view.messages) > 1])
    view = history.views[place]
    history.views[place] = view._replace(messages=tuple(reversed(view.messages)))
    return view.messages[0].id


def show_stranger(history: History, rng: random.Random) -> str:
    """A member reads what was sent while he was none."""
    facts = Facts(history)
    places = [
        (place, message)
        for place, view in enumerate(history.views)
        for message in history.store
        if message.conversation_id == view.conversation_id and facts.is_leaked(message, view.user)
    ]
    place, message = rng.choice(places)
    view = history.views[place]
    history.views[place] = view._replace(messages=tuple(sorted((*view.messages, message), key=lambda one: one.seq)))
    return message.id


def any_shown(history: History, rng: random.Random) -> tuple[int, Message]:
    """A view, and a message in it that its reader surely may see."""
    facts = Facts(history)
    shown = [
        (place, message)
        for place, view in enumerate(history.views)
        for message in view.messages
        if facts.is_owed(view.conversation_id, view.user, facts.commit_window(message)[0])
    ]
    return rng.choice(shown)


# --- Lists -------------------------------------------------------------------------------------------


def any_listed(history: History, rng: random.Random) -> tuple[str, int, Listed]:
    user = rng.choice([user for user, listing in history.listings.items() if listing])
    place = rng.randrange(len(history.listings[user]))
    return user, place, history.listings[user][place]


def forget_conversation(history: History, rng: random.Random) -> str:
    user, place, listed = any_listed(history, rng)
    del history.listings[user][place]
    return f"{user}: his list has conversation {listed.conversation_id} 0 times"


def list_twice(history: History, rng: random.Random) -> str:
    user, _, listed = any_listed(history, rng)
    history.listings[user].append(listed)
    return f"{user}: his list has conversation {listed.conversation_id} 2 times"


def list_to_stranger(history: History, rng: random.Random) -> str:
    _, _, listed = any_listed(history, rng)
    members = {each.user for each in history.memberships if each.conversation_id == listed.conversation_id}
    user = rng.choice(sorted(history.listings.keys() - members))
    history.listings[user].append(listed)
    return f"{user}: his list has conversation {listed.conversation_id}, of which he is no member"


def show_last_otherwise(history: History, rng: random.Random) -> str:
    user, place, listed = any_listed(history, rng)
    assert listed.last_message is not None
    other = other_than(listed.last_message, rng)
    history.listings[user][place] = listed._replace(last_message=other)
    return other.id


def show_older_last(history: History, rng: random.Random) -> str:
    """The list shows the message before the last."""
    user, place, listed = any_listed(history, rng)
    assert listed.last_message is not None
    older = [
        message
        for message in history.store
        if message.conversation_id == listed.conversation_id and message.seq < listed.last_seq
    ]
    history.listings[user][place] = listed._replace(last_message=rng.choice(older))
    return listed.conversation_id


def show_no_last(history: History, rng: random.Random) -> str:
    user, place, listed = any_listed(history, rng)
    history.listings[user][place] = listed._replace(last_message=None)
    assert listed.last_message is not None
    return listed.last_message.id


def miscount(history: History, rng: random.Random) -> str:
    user, place, listed = any_listed(history, rng)
    history.listings[user][place] = listed._replace(unread=listed.unread + rng.choice([-1, 1]))
    return f"{user}: in his list conversation {listed.conversation_id} has"


def end_early(history: History, rng: random.Random) -> str:
    user, place, listed = any_listed(history, rng)
    history.listings[user][place] = listed._replace(last_seq=listed.last_seq - 1)
    return f"{user}: in his list conversation {listed.conversation_id} ends"


def lag(history: History, rng: random.Random) -> str:
    """To one member the conversation is at another rev."""
    user, place, listed = any_listed(history, rng)
    history.listings[user][place] = listed._replace(rev=listed.rev - 1)
    return f"conversation {listed.conversation_id} is at rev"


# --- Read positions ----------------------------------------------------------------------------------


def read_less(history: History, rng: random.Random) -> str:
    """The list is behind what was acknowledged."""
    marks = [mark for mark in history.read_marks if mark.answered]
    mark = rng.choice(marks)
    key = mark.conversation_id, mark.user
    known = max(each.answered or 0 for each in marks if (each.conversation_id, each.user) == key)
    put_position(history, *key, known - 1)
    return f"{known} was acknowledged"


def read_less_than_said(history: History, rng: random.Random) -> str:
    """By its answer the mark is before the message that it was to be at, which had been acknowledged."""
    there = {
        (message.conversation_id, message.seq): attempt.ended_at
        for message in history.store
        for attempt in history.attempts
        if attempt.message_id == message.id
    }
    marks = history.read_marks
    surely = [
        place
        for place, mark in enumerate(marks)
        if mark.invoked_at > there.get((mark.conversation_id, mark.seq), math.inf)
    ]
    place = rng.choice(surely)
    marks[place] = marks[place]._replace(answered=marks[place].seq - 1)
    return f"said to have read conversation {marks[place].conversation_id} up to {marks[place].seq}; "


def read_less_than_sent(history: History, rng: random.Random) -> str:
    message = rng.choice(history.store)
    own = max(
        each.seq
        for each in history.store
        if (each.sender, each.conversation_id) == (message.sender, message.conversation_id)
    )
    history.read_marks = [mark for mark in history.read_marks if mark.user != message.sender]
    put_position(history, message.conversation_id, message.sender, own - 1)
    return f"and has sent seq {own}"


def read_more(history: History, rng: random.Random) -> str:
    """Everything is read to somebody who never said so."""
    user, place, listed = rng.choice(
        [
            (user, place, listed)
            for user, listing in history.listings.items()
            for place, listed in enumerate(listing)
            if listed.unread
        ]
    )
    put_position(history, listed.conversation_id, user, listed.last_seq)
    return f"{user}: in conversation {history.listings[user][place].conversation_id} he has read up to"


def put_position(history: History, conversation_id: str, user: str, seq: int) -> None:
    """As all lists and all devices have it."""
    for each, listing in history.listings.items():
        for place, listed in enumerate(listing):
            if listed.conversation_id == conversation_id:
                positions = tuple((one, seq if one == user else known) for one, known in listed.positions)
                listing[place] = listed._replace(positions=positions)
                if each == user:
                    listing[place] = listing[place]._replace(last_read_seq=seq, unread=listed.last_seq - seq)
    for positions_shown in history.positions.values():
        if (conversation_id, user) in positions_shown:
            positions_shown[conversation_id, user] = seq


def list_other_position(history: History, rng: random.Random) -> str:
    """One member's list has another one's position otherwise than that one's own."""
    user, place, listed = any_listed(history, rng)
    reader, seq = rng.choice(listed.positions)
    positions = tuple((one, seq + 1 if one == reader else known) for one, known in listed.positions)
    history.listings[user][place] = listed._replace(positions=positions)
    return f"in conversation {listed.conversation_id} {reader} has read up to {seq + 1}"


def show_position(history: History, rng: random.Random) -> str:
    """One device shows another position than REST."""
    device = rng.choice([device for device, positions in history.positions.items() if positions])
    key = rng.choice(sorted(history.positions[device]))
    history.positions[device][key] += rng.choice([-1, 1])
    return f"{device}: in conversation {key[0]} it shows {key[1]} at"
