"""One message goes to 1,000 streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.bench.plan import Profile
from app.bench.profiles import delivery

if TYPE_CHECKING:
    from app.bench.plan import Run
    from app.bench.results import ProfileResult

DELIVERIES: Final = 145_000  # a second, as the first prototype did on one core
STREAMS_PER_USER: Final = 20  # what a server allows by default; our own is told to allow all


async def measure(run: Run, result: ProfileResult) -> None:
    """All streams on one channel, or on as few as the server allows."""
    streams = run.plan.size(1000, 50)
    per_user = streams if run.stage.is_own else STREAMS_PER_USER
    async with run.stage.server(max_streams_per_user=per_user) as target:
        users = -(-streams // per_user)
        await delivery.measure(run, result, target, users=users, streams_per_user=per_user, goal=DELIVERIES)


PROFILE: Final = Profile(
    "broadcast",
    "Broadcast: one message to 1,000 streams",
    "1,000 streams on one channel; each frame of 300 bytes is published once and written 1,000 times.",
    measure,
)
