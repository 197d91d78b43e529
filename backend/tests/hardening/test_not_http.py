"""What is hardly HTTP, or not at all: one refusal in the usual form, and the connection is closed."""

from __future__ import annotations

import asyncio

import pytest

from tests.hardening.rows import CANARY, Scene, faults_of

pytestmark = pytest.mark.e2e

HOST = "Host: 127.0.0.1\r\n"
SEND = f"POST /api/v1/messages/send HTTP/1.1\r\n{HOST}Content-Type: application/json\r\n"
NOT_HTTP = {
    "garbage": f"{CANARY}\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": f"GET /{CANARY} HTTP/9.9\r\n{HOST}\r\n",
    "NUL in the path": f"GET /{CANARY}\0 HTTP/1.1\r\n{HOST}\r\n",
    "a byte above 127 in the path": f"GET /{CANARY}\xff HTTP/1.1\r\n{HOST}\r\n",
    "a header without a colon": f"GET / HTTP/1.1\r\n{HOST}{CANARY}\r\n\r\n",
    "a header name with a blank": f"GET / HTTP/1.1\r\n{HOST}X {CANARY}: 1\r\n\r\n",
    "NUL in a header": f"GET / HTTP/1.1\r\n{HOST}X: {CANARY}\0\r\n\r\n",
    "two lengths": f"{SEND}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}",
    "a length and chunks": f"{SEND}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": f"{SEND}Content-Length: -1\r\n\r\n",
    "a length with a sign": f"{SEND}Content-Length: +2\r\n\r\n{{}}",
    "a length with an underscore": f"{SEND}Content-Length: 1_0\r\n\r\n{{}}",
    "a length past 2^64": f"{SEND}Content-Length: 99999999999999999999\r\n\r\n",
    "a negative chunk": f"{SEND}Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    "a chunk with an underscore": f"{SEND}Transfer-Encoding: chunked\r\n\r\n1_0\r\n",
    "a chunk past 2^64": f"{SEND}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
}
REFUSED = {
    "a bare line break in the path": f"GET /{CANARY}\nX-Canary: 1 HTTP/1.1\r\n{HOST}\r\n",  # read as HTTP/0.9
    "two hosts": f"GET /api/v1/users/me HTTP/1.1\r\n{HOST}Host: {CANARY}\r\n\r\n",
    "a host with a path": f"GET /api/v1/users/me HTTP/1.1\r\nHost: 127.0.0.1/{CANARY}\r\n\r\n",
    "a host with a user": f"GET /api/v1/users/me HTTP/1.1\r\nHost: {CANARY}@127.0.0.1\r\n\r\n",
    "a slash too many": f"GET /api/v1/users/me/?{CANARY} HTTP/1.1\r\n{HOST}\r\n",
    "a stream with a slash": f"GET /api/v1/messages/stream/?user_id=a&ticket={CANARY} HTTP/1.1\r\n{HOST}\r\n",
    "two slashes": f"GET //api/v1/users/me?{CANARY} HTTP/1.1\r\n{HOST}\r\n",
    "another method": f"{CANARY.upper()} /api/v1/users/me HTTP/1.1\r\n{HOST}\r\n".replace("C4N4RY", "PROPFIND"),
    "a trace": f"TRACE /api/v1/users/me HTTP/1.1\r\n{HOST}X: {CANARY}\r\n\r\n",
    "an unknown route": f"GET /api/v1/{CANARY} HTTP/1.1\r\n{HOST}\r\n",
    "an unknown route with a line break": f"GET /api/v1/%0d%0aX-Canary:%201 HTTP/1.1\r\n{HOST}\r\n",
    "the path of another host": f"GET http://{CANARY}/api/v1/users/me HTTP/1.1\r\n{HOST}\r\n",
    "a post on the stream": f"POST /api/v1/messages/stream?user_id=a HTTP/1.1\r\n{HOST}\r\n",
}


@pytest.fixture
async def scene(start_server):
    return await Scene.set_up(await start_server())


async def test_what_is_not_http_is_refused_as_a_problem_and_closed(scene):
    """Protocol 9.5: no proxy may see another request in it."""
    wrong = {}
    for name, text in NOT_HTTP.items():
        answer = await scene.say(text.encode("latin-1"))
        faults = faults_of(answer, set())
        if answer.status not in {400, 413} or (answer.status == 400 and answer.headers.get("connection") != "close"):
            faults.append(str(answer))
        if faults:
            wrong[name] = faults
    assert wrong == {}


async def test_what_no_route_answers_is_refused_as_a_problem(scene):
    """Protocol 9.5, 4.1: never a redirect, whose Location would repeat host, path and ticket."""
    wrong = {}
    for name, text in REFUSED.items():
        answer = await scene.say(text.encode("latin-1"))
        faults = faults_of(answer, set())
        if not 400 <= answer.status < 500 or "location" in answer.headers:
            faults.append(str(answer))
        if faults:
            wrong[name] = faults
    assert wrong == {}


async def test_garbage_behind_a_request_does_not_become_its_answer(scene, connect):
    """Protocol 9.5: a proxy would hand a 400 to whoever sent the request before it."""
    health = f"GET /health HTTP/1.1\r\n{HOST}\r\n".encode()
    raw = await connect(scene.server, health)
    assert (await raw.answer()).status == 200  # as it is without the garbage
    raw = await connect(scene.server, health + b"\0\0\0\r\n\r\n")
    received = await raw.rest(5)
    assert not received.startswith(b"HTTP/1.1 4")
    assert (await asyncio.wait_for(scene.server.call("GET", "/health"), 5))[0] == 200
