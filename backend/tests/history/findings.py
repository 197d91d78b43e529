"""What a checker can say against a history."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """One word per broken promise; the texts are those of docs/reliability.md."""

    LOST = "lost"  # in the store, its receiver a member all along, and a device of his never got it
    ABORTED = "aborted"  # acknowledged and not in the store; or in the store or seen although refused
    UNEXPECTED = "unexpected"  # seen or stored, and nobody ever sent it so
    DOUBLED = "doubled"  # handed to a device twice by its streams, or stored twice
    NON_MONOTONIC = "non-monotonic"  # a seq at or below the one before
    SKIPPED = "skipped"  # a seq was left out, or the epoch changed, and no resync said so
    INCONSISTENT = "inconsistent"  # the same place in one inbox holds different messages
    MISSED_CHANGE = "missed change"  # an edit, delete, reaction or update never came, and no resync said so
    DIVERGED = "diverged"  # what a device shows is not what REST says, or REST says two things
    LEAKED = "leaked"  # told to somebody who was not a member
    REFUSED = "refused"  # to somebody who surely was allowed; or answered 500
    UNANSWERED = "unanswered"  # a request or a stream that nothing came of, not even an error


@dataclass(frozen=True, slots=True)
class Finding:
    """One anomaly; `at` is when it was seen, `since` when its message was first sent.

    `message` is empty where it is about none; then `what` names the conversation or the request.
    """

    kind: Kind
    message: str
    user: str
    device: str
    what: str
    at: float | None = None
    since: float | None = None

    def __str__(self) -> str:
        times = [f"{word} {time:.3f}" for word, time in (("sent", self.since), ("seen", self.at)) if time is not None]
        who = self.device or self.user
        about = f"message {self.message}, " if self.message else ""
        return f"{self.kind}: {about}{who}: {self.what} ({', '.join(times) or 'never'})"
