"""One user, or one group, that gets more than anybody else."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from app.bench.messages import Sender
from app.bench.posts import PostResult
from app.bench.target import Target
from tests.faults.kit.cluster import Cluster
from tests.faults.kit.crowd import Crowd, many_descriptors, targets_of
from tests.faults.kit.scene import Played, Scene
from tests.faults.scenarios.calm import Span, no_send_waited, nothing_came_late
from tests.history.run import Run
from tests.support.servers import new_user

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

DEVICES = 5
SENDERS_PER_PROCESS = 24
USER_SENDS_PER_SECOND = 1000
GROUP_SENDS_PER_SECOND = 20
REACHED_SHARE = 0.7  # of the rate, or it was another load
FIRST_SECONDS = 5.0
CAUGHT_UP_SECONDS = 20.0


@pytest.mark.scenario(
    "F64",
    "1,000 messages a second for one user with 5 devices; then 20 a second for a group of 1,000",
    "nothing lost; others are served as fast as before, or nearly",
    seconds=40,
)
async def test_a_hot_user_and_a_hot_group(scene):
    """Protocol 1.2, 2.1, 2.5: sends to one user commit one batch after the other, and others do not wait for them."""
    members = int(scene.scale.pick(gate=60, whole=1000))
    seconds = scene.scale.pick(gate=3, whole=12)
    calm, to_a_user, to_a_group = Span(), Span(), Span()
    with many_descriptors(members + 1000):
        cluster = await scene.start()

        async def faults(_run: Run) -> None:
            with calm:
                await asyncio.sleep(seconds / 3)
            with Crowd(cluster, [new_user("hot")] * DEVICES) as hot:
                await hot.open()
                with scene.fault("one user gets 1,000 a second"), to_a_user:
                    results = await _send_to(cluster, hot.users[0], seconds=seconds)
                    await hot.until_caught_up(seconds=CAUGHT_UP_SECONDS)
                _judge_user(scene, results, hot)
            with Crowd(cluster, [new_user("member") for _ in range(members - 1)]) as crowd:
                await crowd.open()
                owner = new_user("owner")
                (group,) = await crowd.groups(owner)
                with scene.fault("a large group gets 20 a second"), to_a_group:
                    posted, rate = await _post_to_group(cluster, owner, group, seconds=seconds)
                    await crowd.until_caught_up(seconds=CAUGHT_UP_SECONDS)
                _judge_group(scene, posted, rate, crowd)

        base = scene.scale.pick(gate=20, whole=60)
        played: Played = await scene.play(
            faults, users=60, groups=10, largest_group=12, direct_pairs=20, sends_per_second=base
        )
    for hot_time in (to_a_user, to_a_group):
        no_send_waited(scene, played, calm, hot_time)
        nothing_came_late(scene, played, calm, hot_time)


async def _send_to(cluster: Cluster, user: str, *, seconds: float) -> Sequence[PostResult]:
    """Send through all processes at once; every connection has sent something before it is left to wait its turn."""

    async def by(target: Target) -> list[PostResult]:
        writers = target.user_ids(SENDERS_PER_PROCESS, "writer")
        await target.make_users(writers)
        senders = [Sender(target, writer, recipient_id=user) for writer in writers]
        async with target.posts(len(senders)) as posts:
            first = await posts.closed_loop(lambda n: senders[n].request(), seconds=FIRST_SECONDS, most=len(senders))
            rate = USER_SENDS_PER_SECOND / len(cluster.servers)
            return [first, await posts.open_loop(lambda n: senders[n].request(), per_second=rate, seconds=seconds)]

    return [result for results in await asyncio.gather(*map(by, targets_of(cluster))) for result in results]


def _judge_user(scene: Scene, results: Sequence[PostResult], hot: Crowd) -> None:
    """All were acknowledged, and each came to every device once."""
    statuses = sum((result.statuses for result in results), Counter[int]())
    errors = [error for result in results for error in result.errors]
    sent, received = statuses[201], hot.tally("received")
    rate = sum(result.per_second for result in results[1::2])
    scene.notes["sends a second to one user"] = round(rate)
    scene.notes["times one of its streams was told to ask for changes"] = hot.tally("resyncs")
    assert set(statuses) == {201}, f"{dict(statuses)}: {errors}"
    assert received == sent * DEVICES
    assert hot.faults() == {}
    if scene.scale.name == "whole":  # the gate shares the machine with other tests
        assert rate > USER_SENDS_PER_SECOND * REACHED_SHARE


async def _post_to_group(cluster: Cluster, owner: str, group: str, *, seconds: float) -> tuple[int, float]:
    """Post by the clock; gives how many there were, and how many a second."""
    began_at, posts = time.monotonic(), []
    for number in range(int(seconds * GROUP_SENDS_PER_SECOND)):
        server = cluster.servers[number % len(cluster.servers)]
        posts.append(asyncio.ensure_future(server.post(owner, group, f"{number}")))
        await asyncio.sleep(max(0, began_at + (number + 1) / GROUP_SENDS_PER_SECOND - time.monotonic()))
    await asyncio.gather(*posts)
    return len(posts), len(posts) / (time.monotonic() - began_at)


def _judge_group(scene: Scene, posted: int, rate: float, crowd: Crowd) -> None:
    received = crowd.tally("received")
    scene.notes[f"sends a second to a group of {len(crowd.users) + 1:,}"] = round(rate, 1)
    assert received == posted * len(crowd.users)
    assert crowd.faults() == {}
    if scene.scale.name == "whole":
        assert rate > GROUP_SENDS_PER_SECOND * REACHED_SHARE
