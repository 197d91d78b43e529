"""Everything at random: the faults of the other scenarios, in an order that nobody thought of."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.faults.kit.nemesis import draw_rounds, strike
from tests.faults.kit.nemesis_faults import BLOCK_SECONDS, FAILPOINT, MUTE

MINUTES = float(os.environ.get("NEMESIS_MINUTES") or 3)
HEALED_SECONDS = 45.0  # a client's patience with a silent stream, `retry:`, and a heartbeat
SPARE_SECONDS = 240.0  # to start, for rounds that take longer than drawn, to settle and to check

pytestmark = [pytest.mark.faults, pytest.mark.timeout(MINUTES * 60 * 1.5 + 2 * SPARE_SECONDS)]


@pytest.mark.scenario(
    "F70",
    "Random faults of Redis, PostgreSQL, processes and clients, one or two at once",
    "exactly once, in order; each heals by itself",
    seconds=MINUTES * 60 + 60,
    pictured=True,
)
async def test_the_nemesis(scene):
    """Protocol 1.2, 2.4, 5.1 to 5.5, 7.1, 8.1, 8.2; no device is told to reload."""
    cluster = await scene.start(
        link_clients=True, link_redis=True, link_postgres=True, block_seconds=BLOCK_SECONDS, failpoint=FAILPOINT
    )
    seconds = scene.scale.pick(gate=25, whole=MINUTES * 60)
    rounds = draw_rounds(scene.seed, seconds, processes=len(cluster.servers))
    print(f"seed {scene.seed}", *rounds, sep="\n  ", flush=True)  # noqa: T201 - for whoever wants to see it again
    scene.notes["schedule"] = "; ".join(map(str, rounds))

    async def faults(_run) -> None:
        for each in rounds:
            await asyncio.sleep(each.pause_seconds)
            whats = [fault.what for fault in each.faults]
            with scene.fault(" and ".join(whats), mutes=not MUTE.isdisjoint(whats)):
                async with asyncio.TaskGroup() as group:
                    for fault in each.faults:
                        group.create_task(strike(cluster, fault))

    shares = {"changes_share": 0.1, "reads_share": 0.05, "typing_share": 0.05, "removals_per_second": 0.2}
    shape = {"users": 60, "groups": 12, "largest_group": 15, "direct_pairs": 30, "seconds": seconds + SPARE_SECONDS}
    played = await scene.play(
        faults,
        # A command that PostgreSQL does not answer takes 5 s, and a process that is blocked then a little longer.
        answer_seconds=5 + BLOCK_SECONDS + 2,
        settle_seconds=60,
        sends_per_second=scene.scale.pick(gate=40, whole=80),
        **shape,
        **shares,
    )
    scene.notes["faults"] = sum(len(each.faults) for each in rounds)
    longest = max(end - begin for begin, end, _ in played.history.faults)
    assert played.slowest_delivery() < longest + HEALED_SECONDS
