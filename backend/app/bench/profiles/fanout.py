"""Each of 1,000 users gets messages of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.bench.plan import Profile
from app.bench.profiles import delivery

if TYPE_CHECKING:
    from app.bench.plan import Run
    from app.bench.results import ProfileResult

DELIVERIES: Final = 100_000  # a second, as the first prototype did on one core


async def measure(run: Run, result: ProfileResult) -> None:
    """One stream per user."""
    async with run.stage.server() as target:
        users = run.plan.size(1000, 50)
        await delivery.measure(run, result, target, users=users, streams_per_user=1, goal=DELIVERIES)


PROFILE: Final = Profile(
    "fanout",
    "Fan-out: each user its own message",
    "1,000 users with one stream each; every message goes to one of them. Frames of 300 bytes are published on "
    "Redis, in turn, with at most about 80 ms of them under way; measured is the way from there to the sockets.",
    measure,
)
