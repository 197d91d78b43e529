"""Who does what to whom and when: all of it follows from a shape and a seed."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import Literal

ChangeKind = Literal["edit", "delete", "react"]
CONTENT_CHARACTERS = (5, 200)
LEAVE_WITHIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a run is. Of all acts, the first three shares do something else than send.

    Of all devices, `away_share` leave within the first seconds and do not come back, `late_share` leave and come
    back with their cursors when the load is over.
    """

    users: int = 200
    devices_per_user: int = 2
    groups: int = 40
    smallest_group: int = 2
    largest_group: int = 50
    direct_pairs: int = 100
    sends_per_second: float = 1000
    seconds: float = 10
    changes_share: float = 0.0  # edit, delete, react
    reads_share: float = 0.0
    typing_share: float = 0.0
    away_share: float = 0.0
    late_share: float = 0.0
    letters: str = "x"  # what contents are made of
    # How often somebody is removed from a group, to come back later.
    removals_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation; the first member owns it and never leaves."""

    number: int
    key: str
    is_direct: bool
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Send:
    at: float
    talk: int
    sender: str
    key: str
    content: str


@dataclass(frozen=True, slots=True)
class Change:
    """`place` (0 to 1) says which of the messages acknowledged by then it is about."""

    at: float
    talk: int
    kind: ChangeKind
    user: str
    place: float


@dataclass(frozen=True, slots=True)
class Removal:
    """Takes `user` out at `at`, and lets him in again `away_seconds` later."""

    at: float
    talk: int
    user: str
    away_seconds: float


@dataclass(frozen=True, slots=True)
class Read:
    """Marks as read up to one of the messages acknowledged by then, which `place` picks as that of a change."""

    at: float
    talk: int
    user: str
    place: float


@dataclass(frozen=True, slots=True)
class Typing:
    at: float
    talk: int
    user: str


Act = Send | Change | Removal | Read | Typing


@dataclass(frozen=True, slots=True)
class Absence:
    """A device that leaves; for good, or until the load is over."""

    at: float
    device: str
    is_for_good: bool


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    shape: Shape
    users: tuple[str, ...]
    talks: tuple[Talk, ...]
    acts: tuple[Act, ...]
    absences: tuple[Absence, ...] = ()


def device_name(user: str, number: int) -> str:
    return f"{user}/{number + 1}"


def make_plan(shape: Shape, seed: int) -> Plan:
    """Draw a plan. The same shape and seed give the same plan, keys and contents included."""
    rng = random.Random(seed)
    users = tuple(f"u{number}-{seed}" for number in range(shape.users))
    talks = _talks(shape, users, rng)
    acts: list[Act] = []
    for number in range(int(shape.sends_per_second * shape.seconds)):
        at = number / shape.sends_per_second
        talk = rng.choice(talks)
        user = rng.choice(talk.members)
        draw = rng.random()
        if draw < shape.changes_share:
            kind: ChangeKind = rng.choice(["edit", "delete", "react", "react"])
            acts.append(Change(at, talk.number, kind, user, rng.random()))
        elif draw < shape.changes_share + shape.reads_share:
            acts.append(Read(at, talk.number, user, rng.random()))
        elif draw < shape.changes_share + shape.reads_share + shape.typing_share:
            acts.append(Typing(at, talk.number, user))
        else:
            acts.append(Send(at, talk.number, user, new_key(rng), _content(number, shape.letters, rng)))
    groups = [talk for talk in talks if not talk.is_direct and len(talk.members) > 2]
    for number in range(int(shape.removals_per_second * shape.seconds) if groups else 0):
        talk = rng.choice(groups)
        at = number / shape.removals_per_second
        acts.append(Removal(at, talk.number, rng.choice(talk.members[1:]), rng.uniform(0.1, 1)))
    acts.sort(key=lambda act: act.at)
    return Plan(seed, shape, users, talks, tuple(acts), _absences(shape, users, rng))


def new_key(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _talks(shape: Shape, users: tuple[str, ...], rng: random.Random) -> tuple[Talk, ...]:
    talks: list[Talk] = []
    for number in range(shape.groups):
        # Skewed to small ones, as groups are; the first two are the bounds themselves.
        skewed = shape.smallest_group + (shape.largest_group - shape.smallest_group) * rng.random() ** 3
        size = [shape.smallest_group, shape.largest_group][number] if number < 2 else round(skewed)
        talks.append(Talk(number, new_key(rng), False, tuple(rng.sample(users, min(size, len(users))))))
    pairs: set[tuple[str, ...]] = set()
    while len(pairs) < min(shape.direct_pairs, len(users) * (len(users) - 1) // 2):
        pairs.add(tuple(sorted(rng.sample(users, 2))))
    talks += [Talk(len(talks) + place, new_key(rng), True, pair) for place, pair in enumerate(sorted(pairs))]
    return tuple(talks)


def _content(number: int, letters: str, rng: random.Random) -> str:
    characters = rng.randint(*CONTENT_CHARACTERS)
    return f"{number} " + (letters * characters)[:characters]


def _absences(shape: Shape, users: tuple[str, ...], rng: random.Random) -> tuple[Absence, ...]:
    devices = [device_name(user, number) for user in users for number in range(shape.devices_per_user)]
    for_good = round(shape.away_share * len(devices))
    late = round(shape.late_share * len(devices))
    leaving = rng.sample(devices, min(for_good + late, len(devices)))
    within_seconds = min(LEAVE_WITHIN_SECONDS, shape.seconds)
    absences = [
        Absence(rng.uniform(0, within_seconds), device, place < for_good) for place, device in enumerate(leaving)
    ]
    return tuple(sorted(absences, key=lambda one: one.at))
