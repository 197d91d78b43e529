"""The AsyncAPI document of the stream, made of the same models as the OpenAPI one, so that neither drifts."""

from __future__ import annotations

from typing import Any, get_args

from app import __version__
from app.schemas.events import EVENTS, SSE_CURSOR, event_schemas

_STREAM = "/api/v1/messages/stream"
_DESCRIPTION = """\
The events of `GET /api/v1/messages/stream` (Server-Sent Events). Each is one SSE block: `event:` is the
message's name, `data:` its payload in one line of JSON. `new_message` alone has an `id:`, the cursor that a
client reconnects with (`Last-Event-ID`), and it alone is replayed: every message, once, in order. A block
of an `id:` alone moves the cursor and is no event."""


def document() -> dict[str, Any]:
    """Give the document (AsyncAPI 3.0)."""
    names = {event: get_args(event.model_fields["event"].annotation)[0] for event in EVENTS}
    messages = {name: _message(event.__name__, name, event.__doc__ or "") for event, name in names.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Gapless events",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "userStream": {
                "address": _STREAM,
                "title": "A user's stream",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "sendEvents": {
                "action": "send",
                "channel": {"$ref": "#/channels/userStream"},
                "summary": "The server tells a user what happens.",
                "messages": [{"$ref": f"#/channels/userStream/messages/{name}"} for name in messages],
            }
        },
        "components": {"messages": messages, "schemas": _payload_schemas()},
    }


def _message(model: str, name: str, summary: str) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": name,
        "summary": summary,
        "payload": event_schemas()[model]["properties"]["data"],
    }
    if name == "new_message":
        message["headers"] = {
            "type": "object",
            "required": ["id"],
            "properties": {"id": {"type": "string", "pattern": SSE_CURSOR, "description": "The SSE `id:`."}},
        }
    return message


def _payload_schemas() -> dict[str, Any]:
    """Give the schemas of payloads; the envelope of event, id and data is SSE's own here."""
    envelopes = {event.__name__ for event in EVENTS} | {"StreamEvent"}
    return {name: schema for name, schema in sorted(event_schemas().items()) if name not in envelopes}
