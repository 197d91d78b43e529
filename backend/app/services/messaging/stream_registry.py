"""All streams of a process: who may open one, whom Redis feeds, and how they all end."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Final

from app.observability import stats
from app.services.messaging import channels
from app.services.messaging.sse_stream import Stream

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from app.inbox import FetchMessagesAfter
    from app.services.messaging.redis_pubsub import PubSub

SLICES: Final = 20  # of a heartbeat interval, so that 10,000 streams are not written to in one moment
SUBSCRIBE_SECONDS: Final = 1.0
SHORT_LIFE_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 5.0
EVICTED_RETRY_MS: Final = 15_000  # a client over its limit comes back, but not at once
DRAIN_RETRY_MS: Final = (500, 4000)


class StreamRegistry:
    """Holds every open stream from admission to end. Implements the streams' port `StreamOwner`."""

    def __init__(self, pubsub: PubSub, fetch_messages_after: FetchMessagesAfter, *, max_streams_per_user: int) -> None:
        """Feed streams from `pubsub`, and let them read what they missed through `fetch_messages_after`."""
        self._pubsub = pubsub
        self._fetch_messages_after = fetch_messages_after
        self._max_streams_per_user = max_streams_per_user
        self._by_user: dict[str, list[Stream]] = {}
        self._next_slice = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.slices: list[dict[Stream, None]] = [{} for _ in range(SLICES)]
        self.is_draining = False

    @property
    def fetch_messages_after(self) -> FetchMessagesAfter:
        """How to read what was missed."""
        return self._fetch_messages_after

    def all(self) -> Iterable[Stream]:
        """Every open stream, in a list of its own."""
        return [stream for part in self.slices for stream in part]

    async def admit(self, stream: Stream) -> None:
        """Feed a stream from now on; returns when its channel is live, or after 1 s without Redis.

        A stream without Redis catches up when its subscription is acknowledged; until then the head
        check serves it. The oldest stream of a user who has too many is ended.
        """
        mine = self._by_user.setdefault(stream.user_id, [])
        mine.append(stream)
        stream.slice_number = self._next_slice = (self._next_slice + 1) % SLICES
        self.slices[stream.slice_number][stream] = None
        stats.streams_opened += 1
        stats.streams_open += 1
        loop = asyncio.get_running_loop()
        if stream.ends_at < loop.time() + SHORT_LIFE_SECONDS:  # the heartbeat might look too late
            loop.call_at(stream.ends_at, stream.end, "lifetime")
        if len(mine) > self._max_streams_per_user:
            mine[0].end("too_many_streams", retry_ms=EVICTED_RETRY_MS)
        subscribed = stream.subscribed
        if self._pubsub.subscribe(channels.of_user(stream.user_id), stream) or subscribed is None:
            stream.subscribed = None
            return
        enough = loop.call_later(SUBSCRIBE_SECONDS, subscribed.set)
        try:
            await subscribed.wait()
        finally:
            enough.cancel()
            stream.subscribed = None

    def release(self, stream: Stream) -> None:
        """Take a stream out, at once; idempotent."""
        if self.slices[stream.slice_number].pop(stream, stream) is not None:
            return
        stats.streams_open -= 1
        mine = self._by_user[stream.user_id]
        mine.remove(stream)
        if not mine:
            del self._by_user[stream.user_id]
        self._pubsub.unsubscribe(channels.of_user(stream.user_id), stream)

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run the catch-up of a stream, and hold it until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """End all streams, spread over 5 s, each with its own time to come back: no storm elsewhere."""
        self.is_draining = True
        streams = list(self.all())
        random.shuffle(streams)
        pause_seconds = 0.05
        per_pause = math.ceil(len(streams) * pause_seconds / DRAIN_SECONDS)
        for place, stream in enumerate(streams, start=1):
            stream.end("drain", retry_ms=random.randint(*DRAIN_RETRY_MS))  # noqa: S311 - jitter
            if place % per_pause == 0 and place < len(streams):
                await asyncio.sleep(pause_seconds)
        for stream in self.all():  # admitted meanwhile
            stream.end("drain", retry_ms=random.randint(*DRAIN_RETRY_MS))  # noqa: S311 - jitter
