"""The heartbeat tick, and the head check that rides on it.

The check compares what PostgreSQL has with what was delivered. It covers a lost last message, a kill
between commit and publish, a dead Redis, a revoked token and a rewound database, all within one
heartbeat; in degraded mode it runs every second and is the delivery.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from app import events
from app.errors import UnavailableError
from app.observability import log_defect, stats
from app.services.messaging.stream_registry import SLICES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from app.inbox import FetchHeads, Head
    from app.services.messaging.sse_stream import Stream
    from app.services.messaging.stream_registry import StreamRegistry

DEGRADED_SECONDS: Final = 1.0
GRACE_SECONDS: Final = 0.25  # what is committed may still be on its way through Redis
USERS_PER_STATEMENT: Final = 1000
MAX_STATEMENTS: Final = 3  # at once
MAX_CHECKS: Final = 64  # under way or waiting; past it streams are left to the next tick


class Heartbeat:
    """Beats every stream once per interval, a slice at a time, and checks its head."""

    def __init__(
        self,
        registry: StreamRegistry,
        fetch_heads: FetchHeads,
        *,
        heartbeat_seconds: float,
        is_degraded: Callable[[], bool],
    ) -> None:
        """Check against `fetch_heads`; every second while `is_degraded` says so."""
        self._registry = registry
        self._fetch_heads = fetch_heads
        self._slice_seconds = heartbeat_seconds / SLICES
        self._is_degraded = is_degraded
        self._checks: set[asyncio.Task[None]] = set()
        self._statements = asyncio.Semaphore(MAX_STATEMENTS)

    async def run(self) -> None:
        """Tick until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        last_degraded_check = 0.0
        number = 0
        while True:
            due = max(due + self._slice_seconds, loop.time())
            await asyncio.sleep(due - loop.time())
            number = (number + 1) % SLICES
            streams = list(self._registry.slices[number])
            self._beat(streams)
            if not self._is_degraded():
                self._start_check(streams)
            elif loop.time() - last_degraded_check >= DEGRADED_SECONDS:
                last_degraded_check = loop.time()
                self._start_check(list(self._registry.all()))

    def _beat(self, streams: Iterable[Stream]) -> None:
        now = datetime.now(UTC)
        loop = asyncio.get_running_loop()
        horizon = loop.time() + self._slice_seconds * (SLICES + 1)
        for stream in streams:
            try:
                if stream.ends_at <= horizon:
                    loop.call_at(stream.ends_at, stream.end, "lifetime")
                stream.beat(now)
            except Exception as error:  # noqa: BLE001 - it costs this stream only
                log_defect("heartbeat_failed", error)
                stream.end("error")

    def _start_check(self, streams: Sequence[Stream]) -> None:
        for start in range(0, len(streams), USERS_PER_STATEMENT):
            if len(self._checks) >= MAX_CHECKS:
                stats.head_checks_failed += 1
                return
            task = asyncio.get_running_loop().create_task(self._check(streams[start : start + USERS_PER_STATEMENT]))
            self._checks.add(task)
            task.add_done_callback(self._checks.discard)

    async def _check(self, streams: Sequence[Stream]) -> None:
        """Compare heads; what is still undelivered after a grace is read from PostgreSQL."""
        before = {stream: (stream.epoch, stream.seq, stream.change) for stream in streams if not stream.has_ended}
        heads = await self._heads({stream.user_id for stream in before})
        if heads is None:
            return
        behind: list[tuple[Stream, Head]] = []
        for stream, (epoch, seq, change) in before.items():
            head = heads.get(stream.user_id)
            if head is not None:
                stream.end_if_revoked(head.tokens_valid_after)
            if epoch == "":
                continue  # it is opening, and will read by itself
            if head is None:
                stream.end("no_inbox")  # gone with its database: opening a stream makes a new one
            elif not _heal_rewind(stream, head, (epoch, seq, change)) and _is_behind(stream, head):
                behind.append((stream, head))
        if not behind:
            return
        await asyncio.sleep(GRACE_SECONDS)
        for stream, head in behind:
            if stream.seq < head.head:
                stream.must_read()  # while it catches up, too: what it reads may be older than this
            stream.missed_change(head.change)

    async def _heads(self, user_ids: Iterable[str]) -> dict[str, Head] | None:
        """Read heads; None when PostgreSQL does not answer, or answers with what nobody expected."""
        try:
            async with self._statements:
                return await self._fetch_heads(sorted(user_ids))
        except UnavailableError:
            pass
        except Exception as error:  # noqa: BLE001 - the next check may succeed
            log_defect("head_check_failed", error)
        stats.head_checks_failed += 1
        return None


def _heal_rewind(stream: Stream, head: Head, before: tuple[str, int, int]) -> bool:
    """Make a stream read that had, before the heads were read, what this database does not have."""
    epoch, seq, change = before
    if head.head < seq or events.epoch_of(head.database_epoch, stream.user_id) != epoch:
        stream.must_read()  # a restored or failed-over database: it will say `resync`
    elif head.change < change:
        stream.must_read(changes_missed="change_ahead")  # a number that Gapless never gave
    else:
        return False
    return True


def _is_behind(stream: Stream, head: Head) -> bool:
    return stream.seq < head.head or stream.change < head.change
