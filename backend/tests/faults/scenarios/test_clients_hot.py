"""One user, or one group, that gets more than anybody else."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.bench.messages import Sender
from app.bench.posts import PostResult
from tests.faults.kit.crowd import Crowd, many_descriptors, targets_of
from tests.support.servers import new_user

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

DEVICES = 5
SENDERS_PER_PROCESS = 24
GROUP_SENDS_PER_SECOND = 20


@pytest.mark.scenario(
    "F64",
    "1,000 messages a second for one user with 5 devices; then 20 a second for a group of 1,000",
    "nothing lost, others unaffected; what the machine carries is noted",
    seconds=70,
)
async def test_a_hot_user_and_a_hot_group(scene):
    """Protocol 1.2, 2.1, 2.5: sends to one user commit one batch after the other, and others do not wait for them."""
    members = int(scene.scale.pick(gate=60, whole=1000))
    seconds = scene.scale.pick(gate=3, whole=12)
    found: dict[str, dict[str, int]] = {}
    with many_descriptors(members + 1000):
        cluster = await scene.start()

        async def faults(_run) -> None:
            with Crowd(cluster, [new_user("hot")] * DEVICES) as hot:
                await hot.open()
                with scene.fault("one user gets 1,000 a second"):
                    results = await _send_to(hot.users[0], per_second=1000, seconds=seconds)
                    await hot.until_caught_up(seconds=20)
                found["user"] = hot.faults()
                scene.notes["times one of its streams was told to ask for changes"] = hot.tally("resyncs")
                sent = sum(result.answered for result in results)
                received = hot.tally("received")
                assert received == sent * DEVICES
                assert [error for result in results for error in result.errors] == []
                scene.notes["sends a second to one user"] = round(sent / max(result.seconds for result in results))
            with Crowd(cluster, [new_user("member") for _ in range(members - 1)]) as crowd:
                await crowd.open()
                owner = new_user("owner")
                (group,) = await crowd.groups(owner)
                with scene.fault("a large group gets 20 a second"):
                    rate = await _post_to_group(owner, group, seconds=seconds)
                    await crowd.until_caught_up(seconds=20)
                found["group"] = crowd.faults()
                scene.notes[f"sends a second to a group of {members:,}"] = round(rate, 1)

        async def _send_to(user: str, *, per_second: float, seconds: float) -> list[PostResult]:
            async def by(target) -> PostResult:
                writers = target.user_ids(SENDERS_PER_PROCESS, "writer")
                await target.make_users(writers)
                senders = [Sender(target, writer, recipient_id=user) for writer in writers]
                async with target.posts(len(senders)) as posts:
                    rate = per_second / len(cluster.servers)
                    return await posts.open_loop(lambda n: senders[n].request(), per_second=rate, seconds=seconds)

            return await asyncio.gather(*(by(target) for target in targets_of(cluster)))

        async def _post_to_group(owner: str, group: str, *, seconds: float) -> float:
            began_at, posts = time.monotonic(), []
            for number in range(int(seconds * GROUP_SENDS_PER_SECOND)):
                server = cluster.servers[number % len(cluster.servers)]
                posts.append(asyncio.ensure_future(server.post(owner, group, f"{number}")))
                await asyncio.sleep(max(0, began_at + number / GROUP_SENDS_PER_SECOND - time.monotonic()))
            await asyncio.gather(*posts)
            return len(posts) / (time.monotonic() - began_at)

        base = scene.scale.pick(gate=20, whole=60)
        played = await scene.play(faults, users=60, groups=10, largest_group=12, direct_pairs=20, sends_per_second=base)
    assert found == {"user": {}, "group": {}}
    scene.notes["p99 of others' sends, s"] = round(played.answer_p99_seconds, 2)
