"""The requests that send messages, made as cheaply as they are sent."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Final

from app.bench.latency import Latencies
from app.bench.target import SEND_PATH

if TYPE_CHECKING:
    from app.bench.streams import Subscriber
    from app.bench.target import Target

# When it was sent, on the clock of this machine's processes, and to which stream; then filler up to 40 characters.
_CONTENT: Final = b"t%019d to %06d.........."
_STAMP: Final = re.compile(rb'"content":"t(\d{19}) to (\d{6})')
TO_ALL: Final = 999_999


class Sender:
    """Makes sends, each with a key of its own and the time it was made at."""

    def __init__(self, target: Target, user_id: str, **to: str) -> None:
        """Send as `user_id`; `to` is recipient_id or conversation_id."""
        ((kind, where),) = to.items()
        self._start = f'{{"{kind}":"{where}","client_message_id":"{secrets.token_hex(4)}-0000-4000-8000-'.encode()
        self._numbers = count(1)
        size = len(self._body(1, 0))
        headers = {**target.bearer(user_id), "Content-Type": "application/json", "Content-Length": str(size)}
        lines = [f"POST {SEND_PATH} HTTP/1.1", f"Host: {target.address}", *(f"{k}: {v}" for k, v in headers.items())]
        self._head = "\r\n".join([*lines, "", ""]).encode()

    def request(self, stream: int = 0) -> bytes:
        """Make the next request; `stream` is the number of the one whose event is timed, or TO_ALL."""
        return self._head + self._body(next(self._numbers), stream)

    def _body(self, number: int, stream: int) -> bytes:
        content = _CONTENT % (time.perf_counter_ns(), stream)
        return b'%b%012x","content":"%b"}' % (self._start, number, content)


def time_arrivals(latencies: Latencies) -> Callable[[Subscriber, bytes], None]:
    """Make an `on_piece` of streams that takes the time from the making of a request to its event."""

    def on_piece(subscriber: Subscriber, piece: bytes) -> None:
        now = time.perf_counter_ns()
        for sent_at, number in _STAMP.findall(piece):
            # The sender's own streams get the event as well: only the other side's counts.
            if int(number) in {subscriber.number, TO_ALL}:
                latencies.add((now - int(sent_at)) / 1e9)

    return on_piece
