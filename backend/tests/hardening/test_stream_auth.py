"""Who may open a stream, with what, from which page, and for how long."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.hardening.raw import STREAM, Raw, eventually, request, watched
from tests.hardening.rows import faults_of
from tests.support.servers import API_KEY, new_user, token_for

pytestmark = pytest.mark.e2e

ALLOWED = "https://app.example.com"
OWN = "127.0.0.1:8000"  # what the requests of these tests say in Host
GOOD_ORIGINS = [None, ALLOWED, f"http://{OWN}", f"https://{OWN}"]
BAD_ORIGINS = [
    "null",
    "",
    "*",
    "https://evil.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil.com",
    "https://evilapp.example.com",
    "https://sub.app.example.com",
    "https://example.com",
    "https://app.example.com@evil.com",
    "https://app.example.com/",
    "https://app.example.com evil",
    "https://app-example.com",
    "https://APP.example.com.",
    "file://",
    "data:text/html,x",
    "chrome-extension://abcdef",
    "http://127.0.0.1:9000",
    "http://localhost:8000",
    "http://[::1]:8000",
    "http://127.0.0.1.evil.com:8000",
    f"{ALLOWED}, https://evil.com",
]


async def session_of(server, user: str, **claims) -> str:
    """Take a stream cookie, as `name=value`."""
    raw = await Raw.to(
        server, request("POST", f"{STREAM}/session", f"Authorization: Bearer {token_for(user, **claims)}")
    )
    answer = await raw.answer()
    raw.reset()
    assert answer.status == 200, answer
    return answer.headers["set-cookie"].split(";")[0]


async def ticket_of(server, user: str, **claims) -> str:
    headers = {"Authorization": f"Bearer {token_for(user, **claims)}"}
    status, body = await server.call("POST", "/messages/stream/ticket", headers=headers)
    assert status == 200
    return body["ticket"]


async def ask(connect, server, user: str, *headers: str, query: str = "") -> int:
    """Ask for a stream, and give the status; a refusal is looked at closely."""
    lines = [f"GET {STREAM}?user_id={user}{query} HTTP/1.1", f"Host: {OWN}", *headers]
    raw = await connect(server, ("\r\n".join(lines) + "\r\n\r\n").encode())
    head = (await raw.until(b"\r\n\r\n")).decode("latin-1")
    status = int(head.split()[1])
    if status == 200:
        await raw.until(b"event: connected")
    raw.reset()
    return status


async def test_a_cookie_opens_a_stream_only_from_our_pages(start_server, connect, valkey):
    """Protocol 4.5: exact origins; Sec-Fetch-Site alone opens nothing that Origin would shut."""
    server = await start_server(cors_origins=ALLOWED)
    bob = new_user("bob")
    await server.know(bob)
    cookie = "Cookie: " + await session_of(server, bob)
    for site in (None, "same-origin", "same-site", "cross-site"):
        fetch = [f"Sec-Fetch-Site: {site}"] if site else []
        for origin in GOOD_ORIGINS:
            lines = [f"Origin: {origin}"] if origin else []
            expected = 403 if not origin and site in {"same-site", "cross-site"} else 200
            assert await ask(connect, server, bob, cookie, *fetch, *lines) == expected, (site, origin)
        await eventually(lambda: not watched(valkey.url), 5, "those streams leave")
        for origin in BAD_ORIGINS:
            assert await ask(connect, server, bob, cookie, *fetch, f"Origin: {origin}") == 403, (site, origin)
            both = [f"Origin: {ALLOWED}", f"Origin: {origin}"]
            assert await ask(connect, server, bob, cookie, *fetch, *both) == 403, (site, origin)
        assert not watched(valkey.url)  # refused before any work
    assert len(BAD_ORIGINS) >= 15


async def test_only_exact_origins_get_cors_headers_with_credentials(start_server):
    """Protocol 4.5: on refusals, too; never reflected, never `*`."""
    server = await start_server(cors_origins=ALLOWED)
    for origin in (ALLOWED, *BAD_ORIGINS):
        for method, target, extra in (
            ("GET", "/api/v1/users/me", []),
            ("GET", f"{STREAM}?user_id=a", []),
            ("OPTIONS", STREAM, ["Access-Control-Request-Method: GET"]),
        ):
            raw = await Raw.to(server, request(method, target, f"Origin: {origin}", *extra))
            answer = await raw.answer()
            raw.reset()
            expected = ALLOWED if origin == ALLOWED else None
            assert answer.headers.get("access-control-allow-origin") == expected, origin
            assert ("access-control-allow-credentials" in answer.headers) == (origin == ALLOWED)
            assert "origin" in answer.headers["vary"].lower()


def altered(text: str) -> list[str]:
    """Change a signed text in each of its parts."""
    head, body, signature = text.split(".")
    swapped = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    return [
        "", ".", "..", text[:-1], text + "A", f"{head}.{body}.", f"{head}.{body}", f"{head}.{body}.{swapped}",
        f"{head}.{body[::-1]}.{signature}", f"eyJhbGciOiJub25lIn0.{body}.", text.upper(), text * 50,
    ]  # fmt: skip


async def test_a_credential_of_another_user_altered_or_expired_opens_nothing(server, connect, valkey):
    """Protocol 4.5, 9.1: cookie, ticket and bearer; two users in one browser keep their own streams."""
    bob, eve = new_user("bob"), new_user("eve")
    await server.know(bob, eve)
    cookies = {user: await session_of(server, user) for user in (bob, eve)}
    tickets = {user: await ticket_of(server, user) for user in (bob, eve)}
    both = f"Cookie: {cookies[eve]}; {cookies[bob]}"
    for user in (bob, eve):  # each opens its own
        assert await ask(connect, server, user, both) == 200
        assert await ask(connect, server, user, query=f"&ticket={tickets[user]}") == 200
        assert await ask(connect, server, user, f"Authorization: Bearer {token_for(user)}") == 200
    await eventually(lambda: not watched(valkey.url), 5, "those streams leave")

    name, value = cookies[bob].split("=", 1)
    eves = cookies[eve].split("=", 1)[1]
    expired = token_for(bob, minutes=-0.1)
    refused = [
        ([f"Cookie: {cookies[eve]}"], ""),
        ([f"Cookie: {name}={eves}"], ""),
        ([f"Cookie: {name}={tickets[bob]}"], ""),
        ([f"Cookie: {name}={token_for(bob)}"], ""),
        ([], f"&ticket={tickets[eve]}"),
        ([], f"&ticket={value}"),
        ([], f"&ticket={token_for(bob)}"),
        ([f"Cookie: {cookies[bob]}"], f"&ticket={tickets[eve]}"),
        ([f"Cookie: {cookies[bob]}"], "&ticket="),
        ([f"Cookie: {cookies[bob]}", f"Authorization: Bearer {token_for(eve)}"], ""),
        ([f"Authorization: Bearer {token_for(eve)}"], ""),
        ([f"Authorization: Bearer {tickets[bob]}"], ""),
        ([f"Authorization: Bearer {value}"], ""),
        ([f"Authorization: Bearer {expired}"], ""),
        ([f"X-API-Key: {API_KEY}", f"X-Act-As: {bob}"], ""),
        *(([f"Cookie: {name}={text}"], "") for text in altered(value)),
        *(([], f"&ticket={text}") for text in altered(tickets[bob])),
        *(([f"Authorization: Bearer {text}"], "") for text in altered(token_for(bob))),
    ]
    for headers, query in refused:
        assert await ask(connect, server, bob, *headers, query=query) == 401, (headers, query)
    assert not watched(valkey.url)


async def test_cookies_and_tickets_open_the_stream_and_nothing_else(server):
    """Protocol 9.1: on a POST route the browser's cookie must not count, whatever page sends it."""
    bob = new_user("bob")
    await server.know(bob)
    cookie, ticket = await session_of(server, bob), await ticket_of(server, bob)
    value = cookie.split("=", 1)[1]
    for method, target in (
        ("GET", "/api/v1/users/me"),
        ("GET", "/api/v1/conversations"),
        ("POST", f"{STREAM}/session"),
        ("POST", f"{STREAM}/ticket"),
        ("DELETE", f"{STREAM}/session"),
        ("POST", "/api/v1/messages/send"),
    ):
        for headers, query in (
            ([f"Cookie: {cookie}"], f"?user_id={bob}"),
            ([], f"?ticket={ticket}&user_id={bob}"),
            ([f"Authorization: Bearer {ticket}"], ""),
            ([f"Authorization: Bearer {value}"], ""),
        ):
            body = b'{"recipient_id":"x","content":"y"}' if target.endswith("send") else b""
            lines = [*headers, "Content-Type: application/json"] if body else headers
            raw = await Raw.to(server, request(method, target + query, *lines, body=body))
            answer = await raw.answer()
            raw.reset()
            assert answer.status == 401, (method, target, headers)
            assert "set-cookie" not in answer.headers
            assert faults_of(answer, set()) == []


async def test_a_revocation_between_issue_and_use_is_seen(server, connect, open_stream):
    """Protocol 9.3: of a cookie, a ticket, a token, and of the streams that are open."""
    bob = new_user("bob")
    await server.know(bob)
    cookie, ticket, token = await session_of(server, bob), await ticket_of(server, bob), token_for(bob)
    stream = await open_stream(server, bob)
    assert await ask(connect, server, bob, f"Cookie: {cookie}") == 200
    status, _ = await server.call("POST", f"/users/{bob}/revoke", headers={"X-API-Key": API_KEY})
    assert status == 204
    await stream.until_end(2)
    assert await ask(connect, server, bob, f"Cookie: {cookie}") == 401
    assert await ask(connect, server, bob, query=f"&ticket={ticket}") == 401
    assert await ask(connect, server, bob, f"Authorization: Bearer {token}") == 401
    fresh = token_for(bob, issued_ago_seconds=-2)  # of the host app, later than the revocation
    assert await ask(connect, server, bob, f"Authorization: Bearer {fresh}") == 200


async def test_a_stream_ends_when_its_token_expires_and_cannot_be_opened_again(server, connect):
    """Protocol 7.2, 9.2: not at the next heartbeat but then; the credential has ended with it."""
    bob = new_user("bob")
    await server.know(bob)
    expires_at = int(time.time()) + 4
    ways = [
        (["Cookie: " + await session_of(server, bob, exp=expires_at)], ""),
        ([], "&ticket=" + await ticket_of(server, bob, exp=expires_at)),
        ([f"Authorization: Bearer {token_for(bob, exp=expires_at)}"], ""),
    ]

    async def outlive(headers: list[str], query: str) -> None:
        lines = [f"GET {STREAM}?user_id={bob}{query} HTTP/1.1", f"Host: {OWN}", *headers]
        raw = await connect(server, ("\r\n".join(lines) + "\r\n\r\n").encode())
        await raw.until(b"event: connected")
        assert (await raw.rest(8)).endswith(b"0\r\n\r\n")
        assert expires_at - 0.5 < time.time() < expires_at + 2
        assert await ask(connect, server, bob, *headers, query=query) == 401

    await asyncio.gather(*(outlive(*way) for way in ways))


async def test_the_log_holds_no_secret_and_no_text_even_at_debug(start_server, connect, open_stream):
    """Protocol 9.5: tokens, cookies, tickets, keys, contents, cursors of queries; log lines stay lines."""
    canary = "c4n4ry" + "%0d%0a" + "forged"
    server = await start_server(log_level="debug", app_env="development", heartbeat_seconds=1)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    cookie, ticket, token = await session_of(server, bob), await ticket_of(server, bob), token_for(bob)
    stream = await open_stream(server, bob)
    await server.send(ada, bob, "c4n4ry text")
    await stream.messages(1)
    assert await ask(connect, server, bob, f"Cookie: {cookie}; other=c4n4ry") == 200
    assert await ask(connect, server, bob, query=f"&ticket={ticket}&x={canary}") == 200
    assert await ask(connect, server, bob, f"Authorization: Bearer {token}x") == 401
    assert await ask(connect, server, bob, query="&ticket=c4n4ry") == 401
    await server.call("POST", f"/users/{bob}/revoke", headers={"X-API-Key": API_KEY})
    await server.call("GET", f"/users/me?token={token}", user=ada)
    await server.call("POST", "/dev/token", json={"user_id": ada, "name": "c4n4ry name"})
    for target in (f"/api/v1/{canary}", f"/nowhere?{canary}", f"/api/v1/users/{canary}"):
        raw = await connect(server, request("GET", target, f"X-Request-ID: {canary}", f"User-Agent: {canary}"))
        await raw.answer()
    raw = await connect(server, f"c4n4ry {token}\r\n\r\n".encode())
    await raw.rest(5)
    await asyncio.sleep(1.2)  # a heartbeat and a probe
    log = server.log.read_text()
    assert "path=/api/v1/messages/stream" in log  # it is a log of what happened
    secrets = [token, ticket, cookie.split("=", 1)[1], API_KEY, "eyJ", "c4n4ry text", "c4n4ry name", "ticket="]
    assert [secret for secret in secrets if secret in log] == []
    assert not [line for line in log.splitlines() if line.startswith("forged")]
    # A path that no route knows is logged as it came, percent-encoded; nothing else of it is.
    assert all("path=/api/v1/c4n4ry%0d%0aforged" in line for line in log.splitlines() if "c4n4ry" in line)
