"""One SSE stream: replay, order, gap repair. It never leaves a hole: it fills it or says `resync`.

A stream is fed by the Pub/Sub reader (`on_frame`) and writes straight to its wire. While it reads from
PostgreSQL, or waits for a late frame, or for a client that is behind, live frames queue up to 64 KB;
past that they are forgotten, because PostgreSQL has them.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from app import events
from app.errors import UnavailableError
from app.observability import log_defect, stats
from app.services.messaging.continuity import why_broken
from app.services.messaging.cursor import Cursor, Verdict, judge
from app.services.messaging.frame_queue import FrameQueue

if TYPE_CHECKING:
    from app.events import Frame, Run
    from app.inbox import Missed
    from app.services.messaging.stream_ports import StreamOwner, Wire

PAGE_BYTES: Final = 32 * 1024  # written at once; below the transport's high-water mark
DRAIN_SECONDS: Final = 10.0  # a client that does not read a page in this time is slow
LATE_FRAME_SECONDS: Final = 0.05  # two processes may publish 8 before 7
ABORT_SECONDS: Final = 5.0  # after its end a connection is cut, whatever is unread
RETRY_READ_SECONDS: Final = (0.25, 0.75)  # between attempts to read from a PostgreSQL that does not answer
RETRY_MS: Final = (1000, 4000)
_RECONNECTED: Final = "redis_reconnected"
_OVERFLOW: Final = "overflow"  # more than the client read


class _State(Enum):
    OPENING = auto()  # nothing written yet; frames queue
    CATCHING_UP = auto()  # a task reads and writes; frames queue
    LIVE = auto()
    WAITING = auto()  # for a late frame; frames queue
    ENDED = auto()


_LIVE: Final = _State.LIVE  # looked up once: the inner loop of the fan-out asks for it


class _DisconnectedError(Exception):
    """The client has gone."""


class Stream:
    """What one client has been sent, and what comes next."""

    __slots__ = (
        "_change_passed_on",
        "_changes_missed",
        "_must_read",
        "_owner",
        "_queue",
        "_state",
        "_timer",
        "_uncounted_missed",
        "_wire",
        "change",
        "ends_at",
        "epoch",
        "issued_at",
        "seq",
        "slice_number",
        "subscribed",
        "user_id",
    )

    def __init__(
        self, user_id: str, wire: Wire, *, owner: StreamOwner, issued_at: datetime | None, ends_at: float
    ) -> None:
        """Serve `user_id` on `wire` until the loop's time `ends_at`; `issued_at` is the token's."""
        self.user_id = user_id
        self.issued_at = issued_at
        self.ends_at = ends_at
        self.epoch = ""
        self.seq = 0
        self.change = 0
        self.slice_number = 0
        self.subscribed: asyncio.Event | None = asyncio.Event()  # None once nobody waits for it
        self._wire = wire
        self._owner = owner
        self._state = _State.OPENING
        self._queue = FrameQueue()
        self._must_read = False  # PostgreSQL may have something that the queue has not
        self._change_passed_on = (0, 0)  # the number and hash of the last one
        self._changes_missed: str | None = None  # why changes may have been missed as well
        self._uncounted_missed: str | None = None  # why receipts or own settings were; the next heartbeat tells
        self._timer: asyncio.TimerHandle | None = None

    @property
    def cursor(self) -> Cursor:
        """Up to where the client has been served."""
        return Cursor(self.epoch, self.seq)

    @property
    def is_live(self) -> bool:
        """Whether frames go straight through."""
        return self._state is _State.LIVE

    @property
    def has_ended(self) -> bool:
        """Whether nothing will be written any more."""
        return self._state is _State.ENDED

    # --- Opening and ending ----------------------------------------------------------------------

    async def open(self, last: Cursor | None, missed: Missed, *, heartbeat_seconds: float) -> None:
        """Acknowledge, replay what was missed since `last`, and go live.

        `missed` is the snapshot that followed the acknowledged subscription. A client that does not read
        ends the stream; a PostgreSQL that stops answering delays it.
        """
        if self.has_ended:  # while the head of the response was being sent
            return
        self._state = _State.CATCHING_UP
        self.epoch = events.epoch_of(missed.database_epoch, self.user_id)
        self.change = missed.change
        reason = why_broken(last, self.epoch, missed) if last is not None else None
        self.seq = last.seq if last is not None and reason is None else missed.head
        self._wire.write(events.retry_block(random.randint(*RETRY_MS)))  # noqa: S311 - jitter
        if reason is None:
            self._wire.write(events.id_block(self.epoch, self.seq))
        connected = {
            "user_id": self.user_id,
            "cursor": str(self.cursor),
            "recovered": last is not None and reason is None,
            "replayed": missed.head - self.seq,
            "heartbeat_seconds": heartbeat_seconds,
            "server_time": datetime.now(UTC),
        }
        self._wire.write(events.connected_frame(connected))
        if reason is not None:
            self._resync_all(reason, missed)
        await self._catch_up(missed)

    def end(self, reason: str, *, retry_ms: int | None = None) -> None:
        """Leave the fan-out and finish the response, in one step; idempotent."""
        if self._state is _State.ENDED:
            return
        has_begun = self._state is not _State.OPENING  # before that the endpoint answers, from the status line on
        self._state = _State.ENDED
        self._cancel_timer()
        self._queue.clear()
        stats.streams_closed[reason] += 1
        self._owner.release(self)
        if retry_ms is not None and has_begun and not self._wire.is_full():
            self._wire.write(events.retry_block(retry_ms))
        self._wire.end(ABORT_SECONDS)

    # --- What comes in ---------------------------------------------------------------------------

    def on_frame(self, frame: Frame) -> None:
        """Take one live frame: write it, drop it, or queue it until its turn."""
        is_live = self._state is _LIVE
        if is_live and not self._wire.is_full():
            if frame.number == self.seq + 1 and frame.kind == "message" and frame.epoch == self.epoch:
                # What `_pass_on` would do, without the calls: nearly every frame goes this way.
                self.seq = frame.number
                self._wire.write(frame.raw, frame)
                stats.frames_delivered += 1
                return
            if self._pass_on(frame):
                return
            self._wait_for_late_frame()
        elif frame.kind == "control":
            self._obey(frame)
            return
        elif self._state is _State.ENDED:
            return
        elif is_live:
            self._start_catching_up()  # the client is behind
        self._enqueue(frame)
        if self._state is not _State.WAITING:
            return
        if self._must_read:  # the queue has overflowed
            self._start_catching_up()
        else:
            self._queue.flush(self._pass_on, PAGE_BYTES)
            if not self._queue:
                self._go_live()

    def on_run(self, run: Run) -> None:
        """Take messages that follow each other: in one write, if they follow what was delivered, too."""
        if self._state is _LIVE and run.first == self.seq + 1 and run.epoch == self.epoch and not self._wire.is_full():
            self.seq = run.last
            self._wire.write(run.raw, run)
            stats.frames_delivered += len(run)
        else:
            for frame in run.frames:
                self.on_frame(frame)

    def on_subscribed(self) -> None:
        """Read what was published before the channel was live. At the first time the opener waits for it."""
        if self.subscribed is not None:
            self.subscribed.set()
            self.subscribed = None
        else:
            self.must_read(changes_missed=_RECONNECTED)

    def on_error(self) -> None:
        """Something in this stream failed: end it, its cursor heals it."""
        self.end("error")

    def must_read(self, *, changes_missed: str | None = None) -> None:
        """Read from PostgreSQL what has been missed; `changes_missed` says why changes may be among it."""
        self._must_read = True
        self._changes_missed = changes_missed or self._changes_missed
        if self._state in (_State.LIVE, _State.WAITING):
            self._start_catching_up()

    def missed_change(self, change: int) -> None:
        """Take note of a change that the database has and this stream never saw."""
        if change <= self.change:
            return
        if self._state is _State.LIVE:
            self._resync_changes("change_missed", change)
        else:
            self.must_read(changes_missed="change_missed")

    def beat(self, now: datetime) -> None:
        """Write a heartbeat, unless the client is behind with what it has.

        A `resync` that can wait goes with it: heartbeats are spread, and so are the questions that clients then ask.
        """
        if self._state is _State.LIVE and self._wire.is_full():
            self._start_catching_up()  # ends the stream if it stays so
        elif self._state is not _State.OPENING and not self._wire.is_full():
            if self._uncounted_missed is not None:
                self._resync_changes(self._uncounted_missed, self.change)
            self._wire.write(events.heartbeat_frame(now, self.seq))

    def end_if_revoked(self, valid_after: datetime | None) -> None:
        """End the stream if its token was issued at `valid_after`, in whole seconds, or before."""
        if (
            valid_after is not None
            and self.issued_at is not None
            and self.issued_at <= valid_after.replace(microsecond=0)
        ):
            self.end("revoked")

    def _obey(self, frame: Frame) -> None:
        """Carry out a control frame: `!read`, or `!close <valid_after>`."""
        command, _, argument = frame.raw.partition(b" ")
        if frame.raw == events.READ_CONTROL:
            self.must_read()
        if command == b"!close" and argument.isdigit() and len(argument) < 12:  # noqa: PLR2004 - a time, in seconds
            self.end_if_revoked(datetime.fromtimestamp(int(argument), UTC))

    # --- Order -----------------------------------------------------------------------------------

    def _pass_on(self, frame: Frame) -> bool:
        """Deliver or drop a frame; false when it is not its turn."""
        if frame.kind == "message":
            verdict = judge(self.epoch, self.seq, frame.epoch, frame.number)
            if verdict is Verdict.DELIVER:
                self.seq = frame.number
        elif frame.kind == "change":
            verdict = judge("", self.change, "", frame.number)
            if verdict is Verdict.DELIVER:
                self.change = frame.number
                self._change_passed_on = (frame.number, hash(frame.raw))
            elif frame.number == self._change_passed_on[0] and hash(frame.raw) != self._change_passed_on[1]:
                self._resync_changes("change_taken", self.change)  # two deployments on one Redis: one is not ours
        elif frame.kind == "control":
            self._obey(frame)
            return True
        else:
            verdict = Verdict.DELIVER
        if verdict is Verdict.DELIVER:
            self._wire.write(frame.raw, frame)
            stats.frames_delivered += 1
            return True
        return verdict is Verdict.DUPLICATE

    def _enqueue(self, frame: Frame) -> None:
        if frame.kind == "ephemeral" and self._wire.is_full():
            stats.ephemeral_dropped += 1
            if not frame.raw.startswith(events.TYPING):  # which is past by the time that it could be told of
                self._uncounted_missed = _OVERFLOW
            return
        if not self._queue.add(frame):
            self._must_read = True
            self._changes_missed = _OVERFLOW

    def _wait_for_late_frame(self) -> None:
        self._state = _State.WAITING
        self._timer = asyncio.get_running_loop().call_later(LATE_FRAME_SECONDS, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        self._timer = None
        if self._state is _State.WAITING:
            self._start_catching_up()

    def _go_live(self) -> None:
        self._cancel_timer()
        if self._state is not _State.ENDED:
            self._state = _State.LIVE

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- Catching up -----------------------------------------------------------------------------

    def _start_catching_up(self) -> None:
        self._cancel_timer()
        self._state = _State.CATCHING_UP
        self._owner.spawn(self._catch_up())

    async def _catch_up(self, missed: Missed | None = None) -> None:
        """Bring the client up to date and go live. One at a time per stream."""
        try:
            if missed is not None:
                await self._replay(missed)
            while not await self._settle():
                pass
            self._go_live()
        except TimeoutError:
            stats.slow_clients_closed += 1
            self.end("slow")
        except _DisconnectedError:
            self.end("disconnected")
        except Exception as error:  # noqa: BLE001 - it costs this stream only; its cursor heals it
            log_defect("stream_failed", error)
            self.end("error")

    async def _settle(self) -> bool:
        """One step towards live: drain, write what is in order, else read. True when there is nothing to do."""
        await self._drained()
        if self._must_read:
            await self._read()
            return False
        has_moved = self._queue.flush(self._pass_on, PAGE_BYTES)
        if not self._queue:
            return not self._wire.is_full()
        if has_moved:
            return False  # the page may have been full: what is left is no hole yet
        if self._queue.lacks_change(self.change):
            self._changes_missed = "change_missed"
            await self._read()
        elif self._queue.lacks_message(self.cursor):
            stats.gaps_repaired += 1
            await self._read()
        return False

    async def _read(self) -> None:
        """Read what was missed and write it; then drop what PostgreSQL does not know of."""
        seen = self._queue.seen()
        self._must_read = False
        changes_missed, self._changes_missed = self._changes_missed, None
        missed = await self._fetch()
        if missed is None:
            self._must_read, self._changes_missed = True, changes_missed or self._changes_missed
            return
        epoch = events.epoch_of(missed.database_epoch, self.user_id)
        reason = why_broken(self.cursor, epoch, missed)
        if reason is not None:
            self.epoch = epoch
            self._resync_all(reason, missed)
        else:
            if changes_missed == _RECONNECTED and missed.change == self.change:
                self._uncounted_missed = _RECONNECTED  # all streams are at once: not all clients may ask at once
            elif changes_missed is not None:
                self._resync_changes(changes_missed, missed.change)
            await self._replay(missed)
        # A message or change is published after its commit: what was queued before this read and is not in
        # it was never sent by a Gapless server.
        stats.frames_dropped += self._queue.drop_beyond(seen, self.epoch, missed)

    async def _replay(self, missed: Missed) -> None:
        """Write what was read, in pieces; each is written when the one before has drained."""
        if self.seq == missed.head:
            return
        piece: list[bytes] = []
        for seq, message in missed.messages:
            if message is None:
                piece.append(events.id_block(self.epoch, seq))
            else:
                piece.append(events.message_frame(self.epoch, seq, events.message_body(message)))
            if seq == missed.messages[-1][0] or sum(map(len, piece)) >= PAGE_BYTES:
                self._wire.write(b"".join(piece))
                self.seq = seq
                stats.messages_replayed += len(piece)
                piece = []
                await self._drained()
        if self.seq < missed.head:
            self._must_read = True  # the next page, which may be broken where this one was not

    async def _fetch(self) -> Missed | None:
        """Read what came after the cursor; None, after a pause, when PostgreSQL does not answer."""
        try:
            missed = await self._owner.fetch_messages_after(self.user_id, self.seq)
            if missed is None:  # gone with its database: opening a stream makes a new one, and says `resync`
                self.end("no_inbox")
        except UnavailableError:
            missed = None
            await asyncio.sleep(random.uniform(*RETRY_READ_SECONDS))  # noqa: S311 - jitter
        if self.has_ended:
            raise _DisconnectedError
        return missed

    async def _drained(self) -> None:
        """Wait for the client. Raises TimeoutError when it does not read, _DisconnectedError when it is gone."""
        async with asyncio.timeout(DRAIN_SECONDS):
            is_there = await self._wire.drained()
        if not is_there or self.has_ended:
            raise _DisconnectedError

    # --- What the client is told -----------------------------------------------------------------

    def _resync_all(self, reason: str, missed: Missed) -> None:
        """Say that the client must reload, and only then move its cursor: a cut in between says it again."""
        self.seq = missed.head
        self.change = missed.change
        self._uncounted_missed = None
        stats.resyncs[reason] += 1
        self._wire.write(events.resync_frame(reason, "all", str(self.cursor)))
        self._wire.write(events.id_block(self.epoch, self.seq))

    def _resync_changes(self, reason: str, change: int) -> None:
        """Say that an edit, delete, reaction or conversation change was missed: the client asks `changes`."""
        self.change = change
        self._uncounted_missed = None
        stats.resyncs[reason] += 1
        self._wire.write(events.resync_frame(reason, "changes", str(self.cursor)))
