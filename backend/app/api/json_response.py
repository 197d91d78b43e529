"""Answers in JSON, by the one encoder that also writes the frames."""

from __future__ import annotations

from fastapi import Response

from app import events


def json_response(payload: object, *, status: int = 200) -> Response:
    """Answer with a value of the domain, as it also stands in events."""
    return Response(events.to_json(payload), status, media_type="application/json")
