"""Who does what to whom and when: all of it follows from a shape and a seed."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import Literal

ChangeKind = Literal["edit", "delete", "react"]
CONTENT_CHARACTERS = (5, 200)


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a run is. Of all acts, `changes_share` edit, delete or react instead of sending."""

    users: int = 200
    devices_per_user: int = 2
    groups: int = 40
    smallest_group: int = 2
    largest_group: int = 50
    direct_pairs: int = 100
    sends_per_second: float = 1000
    seconds: float = 10
    changes_share: float = 0.0
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


Act = Send | Change | Removal


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    shape: Shape
    users: tuple[str, ...]
    talks: tuple[Talk, ...]
    acts: tuple[Act, ...]


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
        if rng.random() < shape.changes_share:
            kind: ChangeKind = rng.choice(["edit", "delete", "react", "react"])
            acts.append(Change(at, talk.number, kind, user, rng.random()))
        else:
            acts.append(Send(at, talk.number, user, new_key(rng), _content(number, rng)))
    groups = [talk for talk in talks if not talk.is_direct and len(talk.members) > 2]
    for number in range(int(shape.removals_per_second * shape.seconds) if groups else 0):
        talk = rng.choice(groups)
        at = number / shape.removals_per_second
        acts.append(Removal(at, talk.number, rng.choice(talk.members[1:]), rng.uniform(0.1, 1)))
    acts.sort(key=lambda act: act.at)
    return Plan(seed, shape, users, talks, tuple(acts))


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


def _content(number: int, rng: random.Random) -> str:
    return f"{number} " + "x" * rng.randint(*CONTENT_CHARACTERS)
