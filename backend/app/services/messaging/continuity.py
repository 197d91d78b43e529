"""What makes a stream whole: whether a replay proves it, and whose turn it is. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.inbox import MAX_MISSED
from app.services.messaging.cursor import Cursor, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.events import Frame
    from app.inbox import Missed


def why_broken(last: Cursor, epoch: str, missed: Missed) -> str | None:
    """Give the reason why a replay from `last` cannot be proven complete; None when it can."""
    if last.epoch != epoch:
        return "epoch"
    if last.seq > missed.head:
        return "ahead"
    if missed.head - last.seq > MAX_MISSED:
        return "too_far_behind"
    seqs = [seq for seq, _ in missed.messages]
    if last.seq < missed.head and (not seqs or seqs != list(range(last.seq + 1, last.seq + 1 + len(seqs)))):
        return "retention"  # which leaves a hole below a full page, too
    return None


def is_early(frame: Frame, at: Cursor) -> bool:
    """Whether a message's turn has not come at `at`, or will not come in this epoch."""
    if frame.kind != "message":
        return False
    return judge(at.epoch, at.seq, frame.epoch, frame.number) in (Verdict.GAP, Verdict.RESYNC)


def is_beyond(frame: Frame, epoch: str, missed: Missed) -> bool:
    """Whether a frame that came before `missed` was read is not in it: no Gapless server has sent it."""
    if frame.kind == "message":
        return frame.epoch != epoch or frame.number > missed.head
    return frame.kind == "change" and frame.number > missed.change


def pass_in_order(queue: Sequence[Frame], pass_on: Callable[[Frame], bool], max_bytes: int) -> list[Frame]:
    """Pass on whose turn it is, as often as that makes it another one's, up to `max_bytes`. Gives what is left.

    `pass_on` delivers or drops a frame, and says whether it did.
    """
    passed_bytes = 0
    kept = list(queue)
    is_moving = True
    while is_moving and passed_bytes < max_bytes:
        is_moving = is_after_kept = False
        waiting, kept = kept, []
        for place, frame in enumerate(waiting):
            if passed_bytes >= max_bytes:
                kept.extend(waiting[place:])
                break
            # A change waits behind a message that is kept: it may be about that message.
            if not (is_after_kept and frame.kind == "change") and pass_on(frame):
                is_moving = True  # what was kept before may follow now
                passed_bytes += len(frame.raw)
            else:
                kept.append(frame)
                is_after_kept = is_after_kept or frame.kind == "message"
    return kept
