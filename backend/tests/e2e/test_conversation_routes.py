"""Every route of messages, conversations and members over HTTP: statuses, shapes, refusals by field."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from app.schemas import conversations, messages
from tests.support.servers import Server, new_user

pytestmark = pytest.mark.e2e


def shaped(model: type[BaseModel], body: dict) -> dict:
    """Check that an answer is what the document promises, field by field."""
    model.model_validate(body, extra="forbid")
    return body


async def test_a_conversation_over_http(server: Server):
    ann, bob, cid = new_user("ann"), new_user("bob"), new_user("cid")
    await server.know(ann, bob, cid)

    async def call(method: str, path: str, expected: int, *, user: str = ann, **fields: Any) -> dict:
        kwargs: dict[str, Any] = {"json": fields} if fields else {}
        status, body = await server.call(method, path, user=user, **kwargs)
        assert status == expected, body
        return body

    new_group: dict[str, Any] = {
        "kind": "group",
        "title": "Lunch",
        "member_ids": [bob],
        "client_conversation_id": str(uuid4()),
    }
    group = shaped(conversations.Conversation, await call("POST", "/conversations", 201, **new_group))
    assert (await call("POST", "/conversations", 200, **new_group))["id"] == group["id"]
    await call("POST", "/conversations", 409, **new_group | {"title": "Dinner"})
    await call("POST", "/conversations", 201, kind="direct", member_ids=[bob])
    path = f"/conversations/{group['id']}"

    sent = await call("POST", "/messages/send", 201, conversation_id=group["id"], content="hello")
    message = f"/messages/{shaped(messages.Message, sent)['id']}"
    assert await call("GET", message, 200, user=bob) == sent
    await call("PUT", f"{message}/reactions/%F0%9F%91%8D", 204, user=bob)
    await call("DELETE", f"{message}/reactions/%F0%9F%91%8D", 204, user=bob)
    await call("PUT", f"{message}/reactions/%F0%9F%91%8D", 204, user=bob)
    edited = shaped(messages.Message, await call("PATCH", message, 200, content="hello!"))
    assert edited["reactions"] == [{"emoji": "👍", "count": 1, "user_ids": [bob]}]
    await call("PATCH", message, 403, user=bob, content="x")

    page = shaped(messages.HistoryPage, await call("GET", f"{path}/messages?limit=1", 200))
    assert (page["items"], page["rev"], page["has_more"], page["next_cursor"]) == ([edited], 6, False, None)
    changes = shaped(conversations.Changes, await call("GET", f"{path}/changes?after_rev=0", 200))
    assert (changes["items"], changes["rev"]) == ([edited], 6)
    listed = shaped(conversations.ConversationsPage, await call("GET", "/conversations?limit=1", 200))
    assert listed["items"] == [await call("GET", path, 200)]
    rest = await call("GET", f"/conversations?limit=1&before={listed['next_cursor']}", 200)
    assert (rest["items"][0]["kind"], rest["has_more"]) == ("direct", False)

    assert (await call("PATCH", path, 200, title=None))["title"] is None
    assert (await call("PATCH", f"{path}/me", 200, hidden=True, muted_until="2099-01-01T00:00:00Z"))["hidden"]
    unmuted = await call("PATCH", f"{path}/me", 200, muted_until=None)
    assert (unmuted["muted_until"], unmuted["hidden"]) == (None, True)
    assert [one["id"] for one in (await call("GET", "/conversations?hidden=true", 200))["items"]] == [group["id"]]
    read = shaped(conversations.ReadState, await call("POST", f"{path}/read", 200, user=bob, seq=1))
    assert read == {"conversation_id": group["id"], "last_read_seq": 1, "unread": 0}
    await call("POST", f"{path}/typing", 204, is_typing=True)

    assert (await call("PUT", f"{path}/members/{cid}", 201))["role"] == "member"
    assert (await call("PUT", f"{path}/members/{cid}", 200, role="owner"))["role"] == "owner"
    await call("PUT", f"{path}/members/{new_user()}", 404)
    members = shaped(conversations.MembersPage, await call("GET", f"{path}/members?limit=2", 200))
    rest = await call("GET", f"{path}/members?limit=2&after={members['next_cursor']}", 200)
    assert [one["id"] for one in members["items"] + rest["items"]] == [ann, bob, cid]
    await call("DELETE", f"{path}/members/{cid}", 403, user=bob)
    await call("DELETE", f"{path}/members/{cid}", 204)
    await call("GET", path, 404, user=cid)
    await call("DELETE", message, 204)
    await call("DELETE", message, 204)


REFUSED: list[tuple[str, str, dict | None, str]] = [
    ("POST", "/messages/send", {"content": "x"}, "body"),
    ("POST", "/messages/send", {"content": "x", "recipient_id": "b", "conversation_id": str(uuid4())}, "body"),
    ("POST", "/messages/send", {"content": "", "recipient_id": "b"}, "content"),
    ("POST", "/messages/send", {"content": "x", "recipient_id": "b", "sender_id": "c"}, "body"),
    ("POST", "/messages/send", {"content": "x", "recipient_id": "b", "seq": 5}, "body"),
    ("POST", "/conversations", {"kind": "group", "member_ids": ["nobody"]}, "member_ids.0"),
    ("POST", "/conversations", {"kind": "group", "member_ids": ["bad id"]}, "member_ids.0"),
    ("POST", "/conversations", {"kind": "direct", "member_ids": []}, "member_ids"),
    ("POST", "/conversations", {"kind": "channel", "member_ids": []}, "kind"),
    ("PATCH", f"/conversations/{uuid4()}", {"title": "x", "role": "owner"}, "body"),
    ("PATCH", f"/conversations/{uuid4()}", {}, "title"),
    ("PATCH", f"/conversations/{uuid4()}/me", {"muted_until": "tomorrow"}, "muted_until"),
    ("PATCH", f"/conversations/{uuid4()}/me", {"hidden": None}, "hidden"),
    ("PUT", f"/conversations/{uuid4()}/members/x", {"role": "king"}, "role"),
    ("PUT", f"/conversations/{uuid4()}/members/b%20d", {}, "user_id"),
    ("POST", f"/conversations/{uuid4()}/read", {"seq": -1}, "seq"),
    ("POST", f"/conversations/{uuid4()}/read", {"seq": 2**63}, "seq"),
    ("GET", f"/conversations/{uuid4()}/messages?limit=101", None, "limit"),
    ("GET", f"/conversations/{uuid4()}/messages?before=1_0", None, "before"),
    ("GET", f"/conversations/{uuid4()}/messages?before=5&after=5", None, "after"),
    ("GET", f"/conversations/{uuid4()}/changes", None, "after_rev"),
    ("GET", f"/conversations/{uuid4()}/changes?after_rev=0&limit=201", None, "limit"),
    ("GET", f"/conversations/{uuid4()}/changes?after_rev=9223372036854775808", None, "after_rev"),
    ("GET", "/conversations?before=x", None, "before"),
    ("GET", "/conversations?before=%00", None, "before"),
    ("GET", "/conversations?hidden=maybe", None, "hidden"),
    ("GET", "/conversations/not-a-uuid", None, "conversation_id"),
    ("PUT", f"/messages/{uuid4()}/reactions/%00", None, "emoji"),
    ("PUT", f"/messages/{uuid4()}/reactions/{'a' * 65}", None, "emoji"),
    ("PUT", f"/messages/{uuid4()}/reactions/%20", None, "emoji"),
]


async def test_what_cannot_be_is_refused_by_the_name_of_its_field(server: Server):
    for method, path, body, field in REFUSED:
        kwargs: dict[str, Any] = {} if body is None else {"json": body}
        status, problem = await server.call(method, path, user="ann", **kwargs)
        assert (status, problem["code"]) == (422, "invalid_request"), (path, problem)
        assert field in [error["field"] for error in problem["errors"]], (path, problem)


async def test_every_documented_route_has_a_summary_and_an_id_of_its_own(server: Server):
    status, document = await server.call("GET", "/openapi.json")
    assert status == 200
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    assert all(operation.get("summary") for operation in operations)
