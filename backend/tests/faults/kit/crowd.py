"""Thousands of streams from this one process, over all processes of a cluster, and every number on them compared."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from app.bench.streams import OPEN_SECONDS, SPARE_DESCRIPTORS, Streams, Subscriber
from app.bench.target import Target
from tests.faults.kit.cluster import Cluster
from tests.support.servers import JWT_SECRET

MEMBERS = 999  # of a group, besides its owner
LOOK_SECONDS = 0.1


@contextmanager
def many_descriptors(streams: int) -> Iterator[int]:
    """Raise this process's limit, and with it that of servers started meanwhile; gives how many streams fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield streams if hard == resource.RLIM_INFINITY else min(streams, hard - 2 * SPARE_DESCRIPTORS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def targets_of(cluster: Cluster) -> list[Target]:
    return [
        Target("127.0.0.1", server.port, JWT_SECRET, cluster.postgres.url, cluster.valkey.url)
        for server in cluster.servers
    ]


class Crowd:
    """One stream for each of `users`, in turn on each process. A context manager that cuts what is left.

    `returned`: how many streams that a server had ended were brought back.
    """

    def __init__(self, cluster: Cluster, users: Sequence[str], *, open_seconds: float = OPEN_SECONDS) -> None:
        self.users = list(users)
        self.returned = 0
        self._cluster = cluster
        self._targets = targets_of(cluster)
        self._parts = [Streams(target.host, target.port, open_seconds=open_seconds) for target in self._targets]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts:
            part.close()

    async def open(self, *, concurrency: int = 300) -> None:
        """Make the users known, and open all streams."""
        await self._targets[0].make_users(sorted(set(self.users)))
        requests = self._targets[0].stream_requests(self.users)
        await asyncio.gather(
            *(
                part.open(requests[place :: len(self._parts)], concurrency=concurrency)
                for place, part in enumerate(self._parts)
            )
        )

    def cut(self) -> None:
        """Reset all at once."""
        for part in self._parts:
            part.cut()

    async def reopen(self) -> None:
        """Let all come back at once, each with its cursor."""
        await asyncio.gather(*(part.reopen(concurrency=len(self.users)) for part in self._parts))

    async def bring_back_ended(self) -> None:
        """Open again what a server has ended, each with its cursor."""
        for part in self._parts:
            for subscriber in filter(_is_ended, part.subscribers):
                subscriber.counter.restart()
                self.returned += 1
            await part.reopen(concurrency=100)

    @property
    def ended(self) -> int:
        """How many streams a server has ended that are not back."""
        return sum(map(_is_ended, self.subscribers))

    @property
    def subscribers(self) -> list[Subscriber]:
        return [subscriber for part in self._parts for subscriber in part.subscribers]

    def tally(self, name: str) -> int:
        """One of the counts of `app.bench.counting.Tally`, over all streams."""
        return sum(getattr(part.tally, name) for part in self._parts)

    def faults(self) -> dict[str, int]:
        """What must not be, where it is not zero. Nobody can tell here what a `resync` was about."""
        found: Counter[str] = Counter()
        for part in self._parts:
            found.update({name: count for name, count in part.tally.faults().items() if name != "resyncs"})
        return {name: count for name, count in found.items() if count}

    async def until_caught_up(self, *, seconds: float, brings_back: bool = False) -> float:
        """Wait until every stream is where its inbox is; gives how long that took.

        `brings_back`: what a server ends meanwhile, which would wait for ever.
        """
        began_at = time.monotonic()
        while behind := await self.behind():
            waited = time.monotonic() - began_at
            assert waited < seconds, f"{behind} messages have not come after {waited:.0f} s"
            await asyncio.sleep(LOOK_SECONDS)
            if brings_back:
                await self.bring_back_ended()
        return time.monotonic() - began_at

    async def behind(self) -> int:
        """How many messages are stored for these users and have not come."""
        connection = await self._cluster.postgres.connect()
        try:
            rows = await connection.fetch("SELECT user_id, head FROM inbox_heads WHERE user_id = ANY ($1)", self.users)
        finally:
            await connection.close()
        heads = {row["user_id"]: row["head"] for row in rows}
        return sum(abs(heads[each.key] - (each.counter.last or 0)) for each in self.subscribers)

    async def groups(self, owner: str) -> list[str]:
        """Make groups of all of them, as few as possible; `owner` has them."""
        server = self._cluster.servers[0]
        await server.know(owner)
        return [
            await server.group(owner, *self.users[start : start + MEMBERS])
            for start in range(0, len(self.users), MEMBERS)
        ]


def _is_ended(subscriber: Subscriber) -> bool:
    return subscriber.counter.is_open and subscriber._transport is None
