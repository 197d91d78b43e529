import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import orjson
import pytest
import uvicorn

from app.api import request_body
from tests.unit.edge_client import CANARY, JSON, ask, edge


async def test_a_body_reaches_the_route():
    answer = await ask("POST", "/api/v1/echo", JSON, body=b'{"content":"abc"}')
    assert orjson.loads(answer.text) == {"size": 3}


UNUSABLE = {
    "cut off": b"{",
    "empty": b"",
    "a list": b"[]",
    "a string": b'"x"',
    "not UTF-8": b"\xff\xfe",
    "a lone surrogate": b'{"content":"\\ud800"}',
    "NUL": b'{"content":"\\u0000"}',
    "NaN": b'{"content":NaN}',
    "a field that is not known": b'{"content":"a","canary-7f3a\\n":1}',
    "cut off after the canary": b'{"canary-7f3a"',
    "a list for a text": b'{"content":["canary-7f3a"]}',
    "too deep": b"[" * 200_000,
}


@pytest.mark.parametrize("body", UNUSABLE.values(), ids=UNUSABLE)
async def test_a_body_that_cannot_be_used_is_refused_without_an_echo(body: bytes):
    answer = await ask("POST", "/api/v1/echo", JSON, body=body)
    assert (answer.status, answer.problem["code"]) == (422, "invalid_request")
    assert answer.problem["errors"]
    assert CANARY.encode() not in answer.text


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
)
async def test_a_body_of_another_type_is_refused(media_type: str):
    answer = await ask("POST", "/api/v1/nothing", {"content-type": media_type}, body=b"{}")
    assert (answer.status, answer.problem["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "x"])
async def test_a_compressed_body_is_refused(coding: str):
    answer = await ask("POST", "/api/v1/echo", {**JSON, "content-encoding": coding}, body=b"{}")
    assert answer.status == 415


async def test_the_parameters_of_a_media_type_do_not_matter():
    headers = {"content-type": "Application/JSON; charset=utf-8", "content-encoding": "identity"}
    assert (await ask("POST", "/api/v1/echo", headers, body=b'{"content":"a"}')).status == 200


async def test_no_body_needs_no_type():
    assert (await ask("POST", "/api/v1/nothing")).status == 204
    assert (await ask("POST", "/api/v1/nothing", {"content-length": "0"})).status == 204


@pytest.mark.parametrize("declared", [str(256 * 1024 + 1), "9" * 30])
async def test_a_body_that_is_declared_too_large_is_not_read(declared: str):
    taken = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal taken
        taken += 1
        yield b"{"

    answer = await ask("POST", "/api/v1/echo", {**JSON, "content-length": declared}, body=chunks())
    assert (answer.status, answer.problem["code"]) == (413, "payload_too_large")
    assert taken == 0


async def test_a_body_of_unknown_length_is_read_up_to_the_limit():
    async def read(size: int) -> tuple[int, int]:
        taken = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal taken
            for _ in range(size // 1024):
                taken += 1024
                yield b" " * 1024

        headers = {**JSON, "transfer-encoding": "chunked"}
        return (await ask("POST", "/api/v1/nothing", headers, body=chunks())).status, taken

    assert await read(256 * 1024) == (204, 256 * 1024)
    assert await read(1024**3) == (413, 257 * 1024)


async def test_a_body_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch):
    async def stalling() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    monkeypatch.setattr(request_body, "BODY_SECONDS", 0.02)
    answer = await ask("POST", "/api/v1/echo", {**JSON, "content-length": "100"}, body=stalling())
    assert (answer.status, answer.problem["code"]) == (408, "invalid_request")
    assert answer.headers["connection"] == "close"


# --- On a real server ----------------------------------------------------------------------------


@pytest.fixture
async def port() -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(edge(), lifespan="off", log_config=None, access_log=False, server_header=False)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([listening]))
        yield listening.getsockname()[1]
        server.should_exit = True
        await task


async def test_a_client_that_sends_too_much_reads_the_refusal(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /api/v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    for _ in range(64):  # 4 MB, more than any buffer on the way
        writer.write(chunk)
        await writer.drain()
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_stalled_body_loses_its_connection(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_body, "BODY_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /api/v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    answer = await reader.read()  # to the end: the server closes
    assert answer.startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_response_that_breaks_is_cut_and_the_server_lives_on(port: int, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/v1/messages/stream?break HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert not answer.endswith(b"0\r\n\r\n")
        writer.close()
    assert CANARY not in caplog.text
