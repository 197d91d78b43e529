import gc
import logging
import re

import pytest
import structlog

from app.api import edge as edge_module
from tests.unit.edge_client import CANARY, JSON, ask, edge, finished

# --- Every response ------------------------------------------------------------------------------

EVERYWHERE = [
    ("GET", "/api/v1/items/1", 200),
    ("GET", "/api/v1/messages/stream", 200),
    ("POST", "/api/v1/nothing", 204),
    ("GET", "/api/v1/fails/401", 401),
    ("GET", "/nowhere", 404),
    ("DELETE", "/api/v1/items/1", 405),
    ("HEAD", "/api/v1/messages/stream", 405),
    ("GET", "/api/v1/items/1?limit=x", 422),
    ("GET", "/api/v1/fails/unexpectedly", 500),
    ("GET", "/api/v1/fails/503", 503),
]


@pytest.mark.parametrize("method,path,status", EVERYWHERE)
async def test_every_status_carries_the_headers_that_a_page_needs(method: str, path: str, status: int):
    answer = await ask(method, path, {"origin": "https://app.example.com"})
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["vary"] == "Origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert len(answer.headers["x-request-id"]) == 36
    if status >= 400:
        assert answer.problem["code"]


async def test_an_answer_leaves_no_reference_cycle_behind():
    """The garbage collector would have to find each: half a storm of reconnects went there."""
    await ask("POST", "/api/v1/nothing")
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await ask("GET", "/api/v1/messages/stream")
        circle: list[object] = []
        circle.append(circle)
        del circle
        gc.collect()
        found = {type(thing).__name__ for thing in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert "list" in found  # it would have been seen
    assert "_Response" not in found


async def test_nothing_of_the_api_is_cached_unless_it_says_so():
    assert (await ask("POST", "/api/v1/nothing")).headers["cache-control"] == "no-store"
    assert (await ask("GET", "/api/v1/fails/401")).headers["cache-control"] == "no-store"
    assert (await ask("GET", "/api/v1/items/1")).headers["cache-control"] == "max-age=60"


async def test_a_page_may_run_its_own_scripts_only():
    policy = (await ask("GET", "/api/v1/page")).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "content-security-policy" not in (await ask("GET", "/api/v1/items/1")).headers


async def test_a_refusal_says_how_to_go_on():
    assert (await ask("GET", "/api/v1/fails/401")).headers["www-authenticate"] == "Bearer"
    assert (await ask("GET", "/api/v1/fails/503")).headers["retry-after"] == "1"
    assert (await ask("DELETE", "/api/v1/items/1")).headers["allow"] == "GET"
    assert (await ask("HEAD", "/api/v1/messages/stream")).headers["allow"] == "GET"


@pytest.mark.parametrize("given", ["0190b5a4-7c3e", "a" * 64, "trace.id_1"])
async def test_a_sane_request_id_is_kept(given: str):
    assert (await ask("GET", "/nowhere", {"x-request-id": given})).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "short", "a" * 65, "a b c d e f", "<script>", "id\r\nx: y", "é" * 10])
async def test_any_other_request_id_is_replaced(given: str):
    answer = await ask("GET", "/nowhere", {"x-request-id": given})
    assert re.fullmatch("[0-9a-f-]{36}", answer.problem["request_id"])


# --- Origins and hosts ---------------------------------------------------------------------------

ORIGINS = [
    ("https://app.example.com", True),
    ("https://other.example", True),  # the default port of CORS_ORIGINS is dropped, as browsers do
    ("https://app.example.com:443", False),  # no browser writes it so
    ("http://app.example.com", False),
    ("https://app.example.com:8443", False),
    ("https://evilapp.example.com", False),
    ("https://app.example.com.evil.com", False),
    ("https://app-example.com", False),
    ("https://sub.app.example.com", False),
    ("https://APP.example.com", False),
    ("https://app.example.com/", False),
    ("https://app.example.com@evil.com", False),
    ("null", False),
    ("*", False),
    ("", False),
]


@pytest.mark.parametrize("origin,is_allowed", ORIGINS)
async def test_only_exact_origins_may_read_and_ask(origin: str, is_allowed: bool):
    answer = await ask("GET", "/api/v1/items/1", {"origin": origin})
    assert answer.status == 200
    assert answer.headers.get("access-control-allow-origin") == (origin if is_allowed else None)
    assert ("access-control-allow-credentials" in answer.headers) is is_allowed
    preflight = await ask("OPTIONS", "/api/v1/echo", {"origin": origin, "access-control-request-method": "POST"})
    assert preflight.status == (204 if is_allowed else 403)
    assert preflight.headers["vary"] == "Origin"
    assert preflight.headers.get("access-control-allow-origin") == (origin if is_allowed else None)


async def test_a_preflight_allows_what_the_client_sends():
    headers = {"origin": "https://app.example.com", "access-control-request-method": "PATCH"}
    answer = await ask("OPTIONS", "/api/v1/messages/stream", headers)
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert set(allowed) == {"authorization", "content-type", "last-event-id", "x-request-id"}
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} == set(answer.headers["access-control-allow-methods"].split(", "))


BAD_HOSTS = [
    ("evil.com",),
    ("chat.example.com.evil.com",),
    ("evilchat.example.com",),
    ("chat.example.com:80@evil.com",),
    ("chat.example.com/x",),
    ("chat.example.com?x",),
    ("chat.example.com:port",),
    ("chat.example.com:99999",),
    ("chat.example.com ",),
    ("",),
    ("é",),
    ("example.com",),
    ("[::1",),
    ("chat.example.com", "chat.example.com"),
    (),
]


@pytest.mark.parametrize("hosts", BAD_HOSTS, ids=map(repr, BAD_HOSTS))
async def test_a_host_that_is_not_ours_is_not_served(hosts: tuple[str, ...]):
    app = edge(allowed_hosts=("chat.example.com", "*.chat.example.com", "[::1]"))
    answer = await ask("GET", "/api/v1/items/1", app=app, hosts=hosts)
    assert (answer.status, answer.problem["code"]) == (400, "invalid_request")
    assert (await ask("GET", "/health", app=app, hosts=hosts)).status == 404  # the probe's own answer


@pytest.mark.parametrize("host", ["chat.example.com", "CHAT.example.com.:8000", "a.chat.example.com", "[::1]:80"])
async def test_our_own_hosts_are_served(host: str):
    app = edge(allowed_hosts=("chat.example.com", "*.chat.example.com", "[::1]"))
    assert (await ask("GET", "/api/v1/items/1", app=app, hosts=(host,))).status == 200


@pytest.mark.parametrize("host", ["a b", "a,b", "a/b", "<x>", "a\r\nb", "a:b"])
async def test_a_malformed_host_is_not_served_even_where_any_is(host: str):
    assert (await ask("GET", "/api/v1/items/1", hosts=(host,))).status == 400


# --- What goes wrong inside, and what is written about it ----------------------------------------


async def test_a_defect_shows_nothing_but_the_request_id():
    answer = await ask("GET", "/api/v1/fails/unexpectedly")
    assert answer.problem["code"] == "internal_error"
    assert CANARY.encode() not in answer.text


@pytest.mark.parametrize("how", ["unexpectedly", "timeout", "key"])
async def test_a_defect_before_any_answer_is_answered_here_and_not_by_the_server(how: str):
    answer = await ask("POST", f"/api/v1/messages/send?{how}", {"origin": "https://app.example.com"})
    assert (answer.status, answer.problem["code"]) == (500, "internal_error")
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert CANARY.encode() not in answer.text


async def test_who_has_waited_for_long_is_answered_once_and_what_was_begun_goes_on(monkeypatch):
    """Protocol 8.2: a change that is committed after that is still told."""
    monkeypatch.setattr(edge_module, "ANSWER_SECONDS", 0.02)
    finished.clear()
    answer = await ask("GET", "/api/v1/slow", {"origin": "https://app.example.com"})
    assert (answer.status, answer.problem["code"]) == (503, "unavailable")
    assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.body"]
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert finished == ["slow"]  # and has begun nothing more
    monkeypatch.undo()
    finished.clear()
    assert (await ask("GET", "/api/v1/slow")).status == 200
    assert finished == ["slow", "began more"]


async def test_an_app_that_ends_in_the_moment_of_its_deadline_is_answered_all_the_same(monkeypatch):
    """Protocol 2.5: the server makes a 500 of an app that returns without an answer."""
    monkeypatch.setattr(edge_module, "ANSWER_SECONDS", 0.02)
    answer = await ask("GET", "/api/v1/stalled")
    assert (answer.status, answer.problem["code"]) == (503, "unavailable")
    assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.body"]


async def test_a_response_that_breaks_in_the_middle_is_left_unfinished():
    answer = await ask("GET", "/api/v1/messages/stream?break")
    assert [message.get("more_body") for message in answer.messages[1:]] == [True]


async def test_the_log_holds_no_query_no_header_no_body_and_no_text_of_an_error(caplog):
    caplog.set_level(logging.DEBUG, logger="app.api.edge")
    with structlog.testing.capture_logs() as lines:
        headers = {**JSON, "authorization": CANARY, "cookie": CANARY, "user-agent": CANARY}
        await ask("POST", f"/api/v1/echo?ticket={CANARY}", headers, body=f'{{"{CANARY}":1}}'.encode())
        await ask("GET", f"/api/v1/fails/{CANARY}?ticket={CANARY}")
        await ask("GET", "/nowhere%0Aforged%20line?x=1")
    assert len([line for line in lines if line["event"] == "request"]) == 3
    assert CANARY not in str(lines)
    by_path = {line["path"]: line for line in lines if line["event"] == "request"}
    assert set(by_path) == {"/api/v1/echo", "/api/v1/fails/{how}", "/nowhere%0Aforged%20line"}
    assert by_path["/api/v1/fails/{how}"]["status"] == 500
    defect = next(line for line in lines if line["event"] == "unexpected_error")
    assert defect["error"] == "RuntimeError"
