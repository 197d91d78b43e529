"""What a text may be: pure checks, shared by requests (schemas/text.py) and tokens (auth.py)."""

from __future__ import annotations

import re
from typing import TypeGuard

import orjson

from app.services.messaging import channels

MAX_NAME_CHARACTERS = 100
MAX_URL_CHARACTERS = 512

# What PostgreSQL or a JSON encoder would choke on.
NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
# One line of text: no control characters (C0, DEL, C1), no line or paragraph separator.
NOT_ONE_LINE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# RFC 3986 is ASCII: blanks, quotes, brackets of HTML and backslashes are never part of a URL.
_URL = re.compile(r"https?://[!#-;=?-\[\]_a-z~]+", re.ASCII)


def is_user_id(value: object) -> TypeGuard[str]:
    """Whether `value` is an id that a host app may give to a user."""
    return isinstance(value, str) and channels.USER_ID.fullmatch(value) is not None


def is_name(value: object) -> TypeGuard[str]:
    """Whether `value` is one line of 1 to 100 characters."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS and NOT_ONE_LINE.search(value) is None


def is_web_url(value: object) -> TypeGuard[str]:
    """Whether `value` is an http or https URL of at most 512 ASCII characters."""
    return isinstance(value, str) and len(value) <= MAX_URL_CHARACTERS and _URL.fullmatch(value) is not None


def json_bytes(text: str) -> int:
    """How many bytes `text` takes in a frame: a control character is written as six."""
    return len(orjson.dumps(text)) - 2
