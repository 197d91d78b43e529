"""The recorder and its devices against the real server, with everything that changes messages and members."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from tests.history.checker import check
from tests.history.plan import Shape, make_plan
from tests.history.run import Run, Stage, play
from tests.history.summary import describe, summarize
from tests.support.servers import token_for

pytestmark = pytest.mark.faults

SEED = int(os.environ.get("SEED", "20261124"))
ANSWER_SECONDS = 8  # promised are 5; the rest is a busy machine
SHAPE = Shape(
    users=20, groups=6, largest_group=10, direct_pairs=6, sends_per_second=80, seconds=3, changes_share=0.3,
    reads_share=0.1, typing_share=0.1, removals_per_second=4, away_share=0.1, late_share=0.1,
)  # fmt: skip


async def test_edits_removals_and_lost_connections_leave_every_device_with_what_rest_says(start_server):
    """Protocol 1.2, 5.1, 5.3, 6.3 to 6.6: every device shows every message of its user as it now is."""
    one, other = await asyncio.gather(start_server(), start_server())
    history = await play(make_plan(SHAPE, SEED), Stage([one.port, other.port], token_for), faults=losses, hurry=20)
    found = check(history)
    print(describe(history, found))  # noqa: T201 - with the seed, for whoever wants to see it again
    assert found == []
    names = {event.name for event in history.events}
    assert {"new_message", "message_edited", "message_deleted", "reaction_update", "conversation_updated"} <= names
    assert {"read_receipt", "typing_status"} <= names
    assert any(membership.left_by < history.events[-1].at for membership in history.memberships)
    assert len(history.streams) > len(history.devices) + 20
    assert summarize(history, found).slowest_answer_seconds < ANSWER_SECONDS


async def losses(run: Run) -> None:
    rng = random.Random(run.plan.seed)
    while True:
        await asyncio.sleep(0.05)
        rng.choice([rng.choice(run.devices).reconnect, rng.choice(run.devices).lose_connection])()
