"""Every route against everything that is not a valid request: a documented refusal, no echo, never a 500.

The routes come from the OpenAPI document; one without a row in `rows.py` fails.
"""

from __future__ import annotations

import asyncio
import json
import time
from itertools import product
from uuid import uuid4

import jwt
import pytest

from tests.hardening.rows import CANARY, ROWS, Complaints, Scene, faults_of
from tests.support.servers import JWT_SECRET, token_for

pytestmark = pytest.mark.e2e

MEGABYTE = b'{"content":"' + CANARY.encode() + b"x" * 1_000_000 + b'"}'
NOT_BODIES = {
    "garbage": CANARY.encode(),
    "half an object": b'{"',
    "an array": b"[]",
    "an array of objects": b"[{}]",
    "a string": b'"' + CANARY.encode() + b'"',
    "a number": b"1",
    "true": b"true",
    "NaN": b"NaN",
    "something behind it": b"{} " + CANARY.encode(),
    "not UTF-8": b'{"' + CANARY.encode() + b'\xff\xfe":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NUL": b"\0",
    "a surrogate as a name": b'{"\\ud800' + CANARY.encode() + b'":1}',
    "deep arrays": b"[" * 100_000,
    "deep objects": b'{"a":' * 40_000,
    "deep and closed": b'{"content":' + b"[" * 900 + b"]" * 900 + b"}",
    "a number with an underscore": b'{"seq":1_0}',
    "a number with a sign": b'{"seq":+5}',
    "a form": b"content=" + CANARY.encode(),
}
NOT_JSON = [
    None,
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json-patch+json",
    f"application/{CANARY}",
]
ODD_VALUES = [
    '"\\u0000c4n4ry"',
    '"\\ud800c4n4ry"',
    '"c4n4ry\\r\\nX-Canary: 1"',
    '"\\u2028c4n4ry"',
    '""',
    '"1_0"',
    '"+5"',
    '"' + "c4n4ry" * 10_000 + '"',
    "9223372036854775808",
    "1" * 400,
    "-1",
    "1e400",
    "1.5",
    "true",
    "null",
    "[]",
    "{}",
    '["c4n4ry"]',
    '{"c4n4ry":1}',
    '{"$ne":null}',
    "[" * 500 + "]" * 500,
]
NOT_NUMBERS = [
    "1_0", "+5", "%2B5", "-1", "%205", "5%20", "9223372036854775808", "1" * 4000, "1e3", "1.0", "0x10", "%D9%A1",
    "", "true", "null", "c4n4ry", "%00", "5%0d%0aX-Canary:%201", "%ff", "%zz", "%ED%A0%80",
]  # fmt: skip
ODD_PATHS = [
    "%00", "c4n4ry%0d%0aX-Canary:%201", "%ff%fe", "%2e%2e%2fc4n4ry", "c4n4ry'%22--", "1_0", "-1", "%2B5", "%ED%A0%80",
    "9223372036854775808", "c4n4ry" * 200, "%zz", "%", "%20", "%3Cscript%3Ec4n4ry", "{}", "*", "%E2%80%A8", "a%2Fb",
]  # fmt: skip


@pytest.fixture
async def scene(start_server) -> Scene:
    return await Scene.set_up(await start_server(app_env="development", log_level="warning"))


def conclude(complaints: Complaints, scene: Scene) -> None:
    assert complaints.asked > 20
    assert not complaints.found, "\n".join(complaints.found)
    log = scene.server.log.read_text()
    assert "unexpected_error" not in log
    assert "Traceback" not in log


async def test_every_route_of_the_document_has_a_row(scene):
    """Protocol 9.5: a new route is attacked from its first day."""
    assert set(scene.operations()) == set(ROWS)
    for name, row in ROWS.items():
        if row.caller != "anybody" and "revoke" not in name and not name.startswith("DELETE"):
            answer = await scene.ask(name)
            assert answer.status < 300, (name, answer)  # the rows are valid: what fails below fails for its own reason


async def test_without_a_valid_credential_every_route_is_401(scene):
    """Protocol 4.5, 9.1, 9.5: forged, foreign, expired and misplaced ones alike."""
    now = int(time.time())
    claims = {"sub": scene.names["ada"], "iat": now - 5, "exp": now + 60}
    tokens = {
        "another secret": jwt.encode(claims, "x" * 40, algorithm="HS256"),
        "no algorithm": jwt.encode(claims, "", algorithm="none"),
        "another algorithm": jwt.encode(claims, JWT_SECRET + "x" * 64, algorithm="HS512"),
        "expired": jwt.encode(claims | {"exp": now - 1}, JWT_SECRET, algorithm="HS256"),
        "no end": jwt.encode({"sub": claims["sub"], "iat": now}, JWT_SECRET, algorithm="HS256"),
        "a user id with a line break": jwt.encode(claims | {"sub": "a\nb"}, JWT_SECRET, algorithm="HS256"),
        "garbage": CANARY,
        "points": "a.b.c",
        "long": CANARY * 2000,
    }
    headers = {name: [f"Authorization: Bearer {token}"] for name, token in tokens.items()}
    headers |= {
        "none": [],
        "an empty header": ["Authorization:"],
        "no token": ["Authorization: Bearer"],
        "another scheme": [f"Authorization: Basic {CANARY}"],
        "a wrong server key": [f"X-API-Key: {CANARY}", f"X-Act-As: {scene.names['ada']}"],
        "a cookie": [f"Cookie: gapless_stream_0123456789abcdef={CANARY}"],
    }
    complaints = Complaints()
    await asyncio.gather(
        *(
            complaints.check(scene, name, what, headers=lines, allowed={401})
            for name, row in ROWS.items()
            if row.caller != "anybody"
            for what, lines in headers.items()
        ),
        *(
            complaints.check(
                scene, name, "a user's", allowed={401}, headers=[f"Authorization: Bearer {token_for('root')}"]
            )
            for name, row in ROWS.items()
            if row.caller == "server"
        ),
    )
    conclude(complaints, scene)


async def test_no_route_takes_a_body_that_is_not_its_own(scene):
    """Protocol 9.5: garbage, other types, 1 MB, unknown fields."""
    complaints = Complaints()
    checks = []
    for name, row in ROWS.items():
        if row.body is None:
            continue
        for what, body in NOT_BODIES.items():
            checks.append(complaints.check(scene, name, what, body=body, allowed={415, 422}))
        checks.append(complaints.check(scene, name, "1 MB", body=MEGABYTE, allowed={413}))
        if not row.may_lack_body:
            checks.append(complaints.check(scene, name, "no body", body=b"", allowed={415, 422}))
            checks.append(complaints.check(scene, name, "null", body=b"null", allowed={422}))
        unknown = scene.body(row)[:-1] + b',"c4n4ry":"c4n4ry","sender_id":"x","role_":"owner"}'
        checks.append(complaints.check(scene, name, "unknown fields", body=unknown, allowed={422}))
        checks += [
            complaints.check(scene, name, f"type {content_type}", content_type=content_type, allowed={415})
            for content_type in NOT_JSON
        ]
        gzip = [*scene.credentials(row), "Content-Encoding: gzip"]
        checks.append(complaints.check(scene, name, "gzip", headers=gzip, allowed={415}))
    await asyncio.gather(*checks)
    conclude(complaints, scene)


async def test_no_field_takes_a_value_that_breaks_something_behind_it(scene):
    """Protocol 9.5: NUL, lone surrogates, numbers past 2^63, line breaks, other types, deep nesting."""
    complaints = Complaints()
    checks = []
    for name, row in ROWS.items():
        for key in row.body or {}:
            for value in ODD_VALUES:
                valid = json.loads(scene.body(row))
                others = ",".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in valid.items() if k != key)
                body = ("{" + ",".join(filter(None, [others, f'"{key}":{value}'])) + "}").encode()
                must_fail = key != "content" and value.startswith(('"\\u', '"c4n4ry\\r', "1e400", "9223", "1.5", "[["))
                allowed = {403, 404, 409, 413, 422} if must_fail else None
                complaint = complaints.check(scene, name, f"{key}={value[:40]}", body=body, allowed=allowed)
                checks.append(complaint)
    await asyncio.gather(*checks)
    conclude(complaints, scene)


async def test_no_query_takes_what_is_not_a_number_or_a_cursor(scene):
    """Protocol 9.5: also `1_0`, `+5` and digits of other scripts, which int() would take."""
    complaints = Complaints()
    checks = []
    for name, operation in scene.operations().items():
        for parameter in operation.get("parameters", ()):
            if parameter["in"] != "query":
                continue
            key = parameter["name"]
            rest = "&".join(part for part in ROWS[name].query.split("&") if part and not part.startswith(f"{key}="))
            is_number = "integer" in json.dumps(parameter["schema"])
            for value in NOT_NUMBERS:
                allowed = {422} if is_number or "stream" in name else None
                if "stream" in name:
                    allowed = {200} if key == "last_event_id" and value in {"", "1.0"} else {401, 422}
                query = "&".join(filter(None, [rest, f"{key}={value}"]))
                checks.append(complaints.check(scene, name, f"{key}={value}", query=query, allowed=allowed))
    await asyncio.gather(*checks)
    conclude(complaints, scene)


async def test_no_path_takes_what_is_not_an_id(scene):
    """Protocol 9.5: percent-garbage, line breaks, other encodings; only an emoji may be nearly anything."""
    complaints = Complaints()
    checks = []
    for name in ROWS:
        for key in scene.parameters(name):
            allowed = {404, 422} if key.endswith("_id") and key != "user_id" else None
            checks += [
                complaints.check(scene, name, f"{key}={value}", path={key: value}, allowed=allowed)
                for value in ODD_PATHS
            ]
    await asyncio.gather(*checks)
    conclude(complaints, scene)


async def test_a_foreign_id_and_one_that_does_not_exist_get_the_same_404(scene):
    """Protocol 9.4: byte for byte but for the request id; for strangers and former members."""
    compared = 0
    for who, (name, row) in product(("eve", "exe"), ROWS.items()):
        if not row.is_members_only:
            continue
        own = {"GET /users/{user_id}": {"user_id": scene.names["bob"]}}.get(name, {})
        foreign = await scene.ask(name, user=who, path=own)
        nowhere = {key: str(uuid4()) for key in scene.parameters(name) if key != "emoji"}
        if "members" in name:
            nowhere.pop("user_id", None)
        absent = await scene.ask(name, user=who, path=nowhere)
        assert foreign.status == absent.status == 404, (name, foreign, absent)
        assert faults_of(foreign, set()) == []
        bodies = [{**answer.json, "request_id": ""} for answer in (foreign, absent)]
        assert bodies[0] == bodies[1], name
        assert set(foreign.headers) == set(absent.headers)
        compared += 1
        if name.endswith("/members/{user_id}"):
            continue
        member = await scene.ask(name, user="bob", path=own)
        assert member.status != 404 or name.startswith("DELETE"), (name, member)  # a member does see it
        if name == "DELETE /messages/{message_id}":
            assert member.status == 403
    assert compared > 24


async def test_ids_of_others_in_a_body_reveal_nothing(scene):
    """Protocol 9.4: a conversation, a message to reply to, a key of another sender."""
    group, message = scene.names["group"], scene.names["message"]
    answers = []
    for body in (
        {"conversation_id": group, "content": "hi"},
        {"conversation_id": str(uuid4()), "content": "hi"},
        {"conversation_id": group, "content": "hi", "reply_to_id": message},
    ):
        answer = await scene.ask("POST /messages/send", user="eve", body=json.dumps(body).encode())
        answers.append({**answer.json, "request_id": ""})
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["code"] == "not_found"

    direct = {"recipient_id": scene.names["bob"], "content": "hi", "reply_to_id": message}
    foreign = await scene.ask("POST /messages/send", user="eve", body=json.dumps(direct).encode())
    direct["reply_to_id"] = str(uuid4())
    absent = await scene.ask("POST /messages/send", user="eve", body=json.dumps(direct).encode())
    assert {**foreign.json, "request_id": ""} == {**absent.json, "request_id": ""}
    assert foreign.status == 422

    key = str(uuid4())
    private = {"recipient_id": scene.names["bob"], "content": CANARY, "client_message_id": key}
    assert (await scene.ask("POST /messages/send", user="ada", body=json.dumps(private).encode())).status == 201
    guess = {**private, "content": "hi"}
    answer = await scene.ask("POST /messages/send", user="eve", body=json.dumps(guess).encode())
    assert answer.status == 201
    assert CANARY.encode() not in answer.body
