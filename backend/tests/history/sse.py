"""The wire, read as a browser reads it: an HTTP/1.1 response and its event stream (WHATWG HTML, 9.2)."""

from __future__ import annotations

from typing import NamedTuple

BOM = b"\xef\xbb\xbf"
LINE_BREAK = b"\r\n"


class Block(NamedTuple):
    """What stood before one blank line. Without `data` a browser dispatches nothing and still keeps the id.

    `change` is the number in a comment, which browsers ignore.
    """

    name: str
    data: bytes | None
    id: str | None
    retry: int | None
    change: int | None = None


class EventStreamParser:
    """Takes bytes as they come; what has no blank line behind it yet is not an event."""

    def __init__(self) -> None:
        self._rest = b""
        self._ends_with_cr = False
        self._is_at_start = True

    def feed(self, data: bytes) -> list[Block]:
        """Give the blocks that these bytes complete."""
        if self._ends_with_cr and data:
            self._ends_with_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._ends_with_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._rest += data
        if self._is_at_start and len(self._rest) >= len(BOM):
            self._is_at_start = False
            self._rest = self._rest.removeprefix(BOM)
        *blocks, self._rest = self._rest.split(b"\n\n")
        return [parse_block(block) for block in blocks]


def parse_block(block: bytes) -> Block:
    name, event_id, retry, change, data = b"", None, None, None, []
    for line in block.split(b"\n"):
        key, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if key == b"data":
            data.append(value)
        elif key == b"event":
            name = value
        elif key == b"id" and b"\0" not in value:
            event_id = value.decode()
        elif key == b"retry" and value.isdigit():
            retry = int(value)
        elif not key and value.isdigit():
            change = int(value)
    return Block(name.decode(), b"\n".join(data) if data else None, event_id, retry, change)


class ResponseParser:
    """The head of a response, then its body: chunked, of a known length, or up to the end of the connection."""

    def __init__(self) -> None:
        self.status = 0
        self.is_complete = False
        self._is_chunked = False
        self._left = 0  # of the chunk that has begun, its line break included
        self._length: int | None = None  # what is still to come of a body whose length was told
        self._buffer = b""

    def feed(self, data: bytes) -> bytes:
        """Give the bytes of the body that these complete; raises ValueError on what is no HTTP."""
        self._buffer += data
        if not self.status and not self._read_head():
            return b""
        if self._is_chunked:
            return self._read_chunks()
        body, self._buffer = self._buffer, b""
        if self._length is not None:
            self._length -= len(body)
            self.is_complete = self._length <= 0
        return body

    def _read_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        self._buffer = rest
        lines = head.lower().split(b"\r\n")
        self.status = int(lines[0].split()[1])
        lengths = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
        self._length = lengths[0] if lengths else None
        self._is_chunked = any(line.replace(b" ", b"") == b"transfer-encoding:chunked" for line in lines)
        return True

    def _read_chunks(self) -> bytes:
        """As browsers do: what has come of a chunk counts, whether or not its rest follows."""
        body, place, data = [], 0, self._buffer
        while True:
            if self._left > len(LINE_BREAK):
                piece = data[place : place + self._left - len(LINE_BREAK)]
                body.append(piece)
                place, self._left = place + len(piece), self._left - len(piece)
            if self._left <= len(LINE_BREAK):
                skipped = min(self._left, len(data) - place)
                place, self._left = place + skipped, self._left - skipped
            end = data.find(LINE_BREAK, place)
            if self._left or end < 0:
                break
            size = int(data[place:end].partition(b";")[0], 16)
            if size == 0:
                self.is_complete = True
                break
            place, self._left = end + len(LINE_BREAK), size + len(LINE_BREAK)
        self._buffer = data[place:]
        return b"".join(body)
