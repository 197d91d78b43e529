"""The body of a request is read before anything else happens: bounded in bytes and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Message, Receive

from app.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedMediaTypeError

MAX_BODY_BYTES = 256 * 1024
BODY_SECONDS = 10  # for the whole of it; the slowest phone sends 256 KB in that time


class StalledBodyError(InvalidRequestError):
    """The body did not arrive within 10 s."""


class GoneError(Exception):
    """The client hung up in the middle of its body: nobody is left to answer."""


def has_body(headers: Mapping[str, str]) -> bool:
    """Whether a request announces a body (RFC 9112, 6.3), whatever its method."""
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip() != "0"


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse from the headers alone what cannot be accepted.

    Raises UnsupportedMediaTypeError, PayloadTooLargeError. A page of another site can send a form or
    text without asking first, but never application/json: this is also the defence against such pages.
    """
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaTypeError
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaTypeError
    declared = headers.get("content-length", "0").strip()
    if len(declared) > 18 or (declared.isdecimal() and int(declared) > MAX_BODY_BYTES):  # noqa: PLR2004 - digits
        raise PayloadTooLargeError


async def read_body(receive: Receive) -> bytes:
    """Read the whole body, holding at most 256 KB and one chunk more.

    Raises PayloadTooLargeError, StalledBodyError, GoneError.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise GoneError
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise PayloadTooLargeError
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise StalledBodyError from None


def replay(body: bytes, receive: Receive) -> Receive:
    """Give the app a body that was read already; from then on what the client does next."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return pending.pop() if pending else await receive()

    return receive_again
