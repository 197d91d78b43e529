"""The types of everything a request may hold, shared by all schemas: texts, ids, numbers, times.

A text that PostgreSQL or a JSON encoder would choke on (NUL, a lone surrogate) ends here, as a 422
that names the field. No message of a refusal repeats what was sent.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from annotated_types import Ge, Le
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Strict, WithJsonSchema
from pydantic_core import PydanticCustomError

from app.services.messaging import channels
from app.text_rules import (
    MAX_NAME_CHARACTERS,
    MAX_URL_CHARACTERS,
    NOT_ONE_LINE,
    NOT_STORABLE,
    is_name,
    is_user_id,
    is_web_url,
    json_bytes,
)

MAX_BIGINT = 2**63 - 1
MAX_CONTENT_CHARACTERS = 10_000
MAX_CONTENT_BYTES = 40_000  # as JSON writes it, so that the frame of a message stays under 64 KB
MAX_TITLE_CHARACTERS = 200
MAX_EMOJI_BYTES = 64

_DIGITS = re.compile("0|[1-9][0-9]{0,18}", re.ASCII)
_UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)


class RequestModel(BaseModel):
    """The base of every request body: a field that is not known is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def refuse(sentence: str) -> PydanticCustomError:
    """Make the error of a validator: `sentence` is what the caller reads, and never holds the value.

    A plain ValueError is answered with "is not valid" only, for its text may quote the input.
    """
    return PydanticCustomError("text", "{sentence}", {"sentence": sentence})


def _user_id(value: str) -> str:
    if not is_user_id(value):
        raise refuse("must be 1 to 128 of A-Z a-z 0-9 . _ : @ | + = -")
    return value


def _content(value: str) -> str:
    if not value:
        raise refuse("must not be empty")
    if len(value) > MAX_CONTENT_CHARACTERS:
        raise refuse(f"must have at most {MAX_CONTENT_CHARACTERS} characters")
    if NOT_STORABLE.search(value):
        raise refuse("must not contain NUL or lone surrogates")
    if json_bytes(value) > MAX_CONTENT_BYTES:
        raise refuse(f"must take at most {MAX_CONTENT_BYTES} bytes in JSON")
    return value


def _title(value: str) -> str:
    if not 0 < len(value) <= MAX_TITLE_CHARACTERS or NOT_ONE_LINE.search(value):
        raise refuse(f"must be one line of 1 to {MAX_TITLE_CHARACTERS} characters")
    return value


def _name(value: str) -> str:
    if not is_name(value):
        raise refuse(f"must be one line of 1 to {MAX_NAME_CHARACTERS} characters")
    return value


def _web_url(value: str) -> str:
    if not is_web_url(value):
        raise refuse(f"must be an http or https URL of at most {MAX_URL_CHARACTERS} characters")
    return value


def _emoji(value: str) -> str:
    # U+FFFD is what a path that is not UTF-8 decodes to.
    if not value or NOT_ONE_LINE.search(value) or "\ufffd" in value or " " in value:
        raise refuse("must be an emoji")
    if len(value.encode()) > MAX_EMOJI_BYTES:
        raise refuse(f"must take at most {MAX_EMOJI_BYTES} bytes")
    return value


def _uuid(value: object) -> object:
    if isinstance(value, UUID) or (isinstance(value, str) and _UUID.fullmatch(value)):
        return value
    raise refuse("must be a UUID")


def _digits(value: object) -> object:
    # int() would take "1_0", "+5", " 5" and digits of other scripts.
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # a default of the route
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    raise refuse("must be a whole number")


def _time(value: object) -> datetime:
    if isinstance(value, str) and _TIME.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):  # 30 February; a year before 1 or after 9999 in UTC
            pass
    raise refuse("must be a time in RFC 3339, such as 2026-01-31T12:00:00Z")


def _schema(**schema: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **schema})


# 2^63-1 as "maximum" would be rounded up by every reader that has doubles only.
_SCHEMA_OF_SEQ = WithJsonSchema({"type": "integer", "format": "int64", "minimum": 0})

UserId = Annotated[str, Strict(), AfterValidator(_user_id), _schema(pattern=f"^{channels.USER_ID.pattern}$")]
Content = Annotated[str, Strict(), AfterValidator(_content), _schema(minLength=1, maxLength=MAX_CONTENT_CHARACTERS)]
Title = Annotated[str, Strict(), AfterValidator(_title), _schema(minLength=1, maxLength=MAX_TITLE_CHARACTERS)]
Name = Annotated[str, Strict(), AfterValidator(_name), _schema(minLength=1, maxLength=MAX_NAME_CHARACTERS)]
WebUrl = Annotated[str, Strict(), AfterValidator(_web_url), _schema(format="uri", maxLength=MAX_URL_CHARACTERS)]
Emoji = Annotated[str, Strict(), AfterValidator(_emoji), _schema(minLength=1, maxLength=MAX_EMOJI_BYTES)]
# Only the form with hyphens, so that an id has one spelling (and case) in logs and caches.
Id = Annotated[UUID, BeforeValidator(_uuid)]
# RFC 3339 with an offset, converted to UTC.
Time = Annotated[datetime, BeforeValidator(_time), _schema(format="date-time")]

Flag = Annotated[bool, Strict()]
# A seq, a rev or a count in a body: a JSON integer, never "5", 5.0 or true.
Seq = Annotated[int, Strict(), Ge(0), Le(MAX_BIGINT), _SCHEMA_OF_SEQ]

# The same in a query string, where everything is text.
QuerySeq = Annotated[int, Ge(0), Le(MAX_BIGINT), BeforeValidator(_digits), _SCHEMA_OF_SEQ]
PageLimit = Annotated[int, Ge(1), Le(100), BeforeValidator(_digits)]
ChangesLimit = Annotated[int, Ge(1), Le(200), BeforeValidator(_digits)]
