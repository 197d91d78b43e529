"""Answers in JSON, by the one encoder that also writes the frames."""

from __future__ import annotations

from fastapi import Response

from app import events


def json_response(payload: object, *, status: int = 200) -> Response:
    """Answer with a value of the domain, as it also stands in events."""
    return _JsonResponse(events.to_json(payload), status)


class _JsonResponse(Response):
    """A response whose headers are known: to make them of anything that may be given costs more than to send them."""

    media_type = "application/json"

    def __init__(self, body: bytes, status: int) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
