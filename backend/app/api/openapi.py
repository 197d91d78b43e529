"""The OpenAPI document, with what FastAPI cannot see: the stream, the problems, the ways to sign in."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api import docs_page
from app.api.paths import STREAM_PATH
from app.schemas import problems
from app.schemas.events import SSE_CURSOR, event_schemas
from app.services.messaging import channels
from app.settings import Settings

DESCRIPTION = """\
Real-time messages for an app that already has users. A `201` means the message is committed; every open
stream gets every message addressed to its user exactly once and in order, or is told `resync`.

Open the stream first, wait for `connected`, then load by REST: the other way round loses what is sent in between.
"""
TAGS = [
    {"name": "messages", "description": "Send, edit, delete, react."},
    {"name": "stream", "description": "Live events, and what opens them."},
    {"name": "conversations", "description": "Direct conversations and groups, their history and changes."},
    {"name": "members", "description": "Who is in a group."},
    {"name": "users", "description": "Profiles, and the host server's word on its users."},
    {"name": "operations", "description": "Probes."},
]
SECURITY_SCHEMES: dict[str, dict[str, str]] = {
    "StreamCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "gapless_stream_<h>",
        "description": "Set by `POST /api/v1/messages/stream/session`; `<h>` is made of the user id.",
    },
    "StreamTicket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "From `POST /api/v1/messages/stream/ticket`; good for 30 s.",
    },
}
_EXAMPLE = """\
retry: 2417

id: co4zivklfd4a.41

event: connected
data: {"user_id":"bob","cursor":"co4zivklfd4a.41","recovered":true,"replayed":1,"heartbeat_seconds":10.0, …}

id: co4zivklfd4a.42
event: new_message
data: {"id":"019c13f4-…","content":"Hello Bob", …}

event: heartbeat
data: {"server_time":"2026-01-31T12:00:10Z","head":42}

"""


def install(api: FastAPI, settings: Settings) -> None:
    """Make `api.openapi` give the whole document, and in development serve `/docs`."""

    def document() -> dict[str, Any]:
        if api.openapi_schema is None:
            api.openapi_schema = _document(api)
        return api.openapi_schema

    api.openapi = document  # type: ignore[method-assign]  # FastAPI's own way
    if not settings.is_production:
        docs_page.install(api)


def _document(api: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=api.title,
        version=api.version,
        summary="Self-hosted real-time messaging: every message, once, in order.",
        description=DESCRIPTION,
        routes=api.routes,
        tags=TAGS,
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    document["paths"][STREAM_PATH] = {"get": _stream_operation()}
    problems.describe_in(document)
    components = document["components"]
    # FastAPI's own schemas of the same models stay: one name, one schema.
    components["schemas"] = {**event_schemas(), **components["schemas"]}
    components.setdefault("securitySchemes", {}).update(SECURITY_SCHEMES)
    # One order, whatever order the routes came in: a diff of the committed document shows changes only.
    document["paths"] = dict(sorted(document["paths"].items()))
    document["components"] = {kind: dict(sorted(parts.items())) for kind, parts in sorted(components.items())}
    return document


def _stream_operation() -> dict[str, Any]:
    cursor = {"type": "string", "pattern": SSE_CURSOR}
    return {
        "tags": ["stream"],
        "summary": "Open the stream of live events",
        "description": "Server-Sent Events. After `connected` come the messages that were missed since the cursor, "
        "then everything as it happens. Each `new_message` has an SSE `id:`, the cursor to reconnect with; browsers do "
        "so by themselves. The other events have none and are not replayed. An overloaded server answers with `200`, "
        "`retry:` and the end, because EventSource gives up at any other status.",
        "operationId": "stream_messages",
        "parameters": [
            {
                "name": "user_id",
                "in": "query",
                "required": True,
                "description": "Whose stream; must be the user of the credential.",
                "schema": {"type": "string", "pattern": f"^{channels.USER_ID.pattern}$"},
            },
            {
                "name": "last_event_id",
                "in": "query",
                "required": False,
                "description": "The cursor, for a client that cannot set the header. The header wins.",
                "schema": cursor,
            },
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "The cursor; browsers send it when they reconnect.",
                "schema": cursor,
            },
        ],
        "responses": {
            "200": {
                "description": "The stream. It ends after half an hour at most: reconnect with the cursor.",
                "content": {
                    "text/event-stream": {
                        "schema": {
                            "type": "string",
                            "contentMediaType": "text/event-stream",
                            "contentSchema": {
                                "type": "array",
                                "items": {"$ref": "#/components/schemas/StreamEvent"},
                            },
                        },
                        "example": _EXAMPLE,
                    }
                },
            },
            **{str(status): response for status, response in problems.responses(403).items() if status != 503},  # noqa: PLR2004 - never sent by a stream
        },
        "security": [{"UserToken": []}, {"StreamTicket": []}, {"StreamCookie": []}],
    }
