"""Live frames that wait: for a late one before them, for a read of PostgreSQL, for a client that is behind.

Up to 64 KB of them; past that all are forgotten, because PostgreSQL has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.services.messaging.continuity import is_beyond, is_early, pass_in_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.events import Frame
    from app.inbox import Missed
    from app.services.messaging.cursor import Cursor

MAX_QUEUE_BYTES: Final = 64 * 1024


class FrameQueue:
    """In the order in which they came. It decides nothing: whose turn it is, the stream says."""

    __slots__ = ("_bytes", "_frames")

    def __init__(self) -> None:
        """Begin empty."""
        self._frames: list[Frame] = []
        self._bytes = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._frames)

    def add(self, frame: Frame) -> bool:
        """Let a frame wait; false when there was no room, and all before it have been forgotten."""
        has_room = self._bytes + len(frame.raw) <= MAX_QUEUE_BYTES
        if not has_room:
            self.clear()
        self._frames.append(frame)
        self._bytes += len(frame.raw)
        return has_room

    def clear(self) -> None:
        """Forget all."""
        self._frames = []
        self._bytes = 0

    def flush(self, pass_on: Callable[[Frame], bool], max_bytes: int) -> bool:
        """Pass on what is in order, up to `max_bytes`; whether that was any. Then the rest may follow, or be early."""
        before = len(self._frames)
        self._keep(pass_in_order(self._frames, pass_on, max_bytes))
        return len(self._frames) < before

    def lacks_change(self, last: int) -> bool:
        """Whether a change between `last` and the first that waits is missing."""
        changes = [frame.number for frame in self._frames if frame.kind == "change"]
        return bool(changes) and min(changes) > last + 1

    def lacks_message(self, at: Cursor) -> bool:
        """Whether a message that waits is not the next one after `at`."""
        return any(is_early(frame, at) for frame in self._frames)

    def seen(self) -> list[Frame]:
        """Give what waits now, for `drop_beyond`."""
        return list(self._frames)

    def drop_beyond(self, seen: list[Frame], epoch: str, missed: Missed) -> int:
        """Drop what waited before `missed` was read and is not in it; how many those were."""
        forged = {id(frame) for frame in seen if is_beyond(frame, epoch, missed)}
        if forged:
            self._keep([frame for frame in self._frames if id(frame) not in forged])
        return len(forged)

    def _keep(self, frames: list[Frame]) -> None:
        self._frames = frames
        self._bytes = sum(len(frame.raw) for frame in frames)
