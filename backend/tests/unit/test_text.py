from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from app.events import MAX_FRAME_BYTES
from app.schemas import text
from app.text_rules import json_bytes

CANARY = "canary"


def check(kind: Any, value: object) -> object:
    return TypeAdapter(kind).validate_python(value)


def refusal(kind: Any, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        check(kind, value)
    return "; ".join(str(error["msg"]) for error in caught.value.errors(include_input=False))


def test_content_may_be_any_text_that_fits():
    for content in ("x", " ", "line\r\nline", "\u2028", "👩‍👩‍👧"):
        assert check(text.Content, content) == content
    for character, most in (("a", 10_000), ("😀", 10_000), ('"', 10_000), ("\x01", 6_666)):
        assert check(text.Content, character * most) == character * most


@pytest.mark.parametrize(
    "content,reason",
    [
        ("", "empty"),
        ("a" * 10_001, "10000 characters"),
        ("a\0", "NUL"),
        ("\ud800", "surrogates"),
        ("\udfff tail", "surrogates"),
        ("\x01" * 6_667, "40000 bytes"),
        (7, "string"),
        (b"bytes", "string"),
        (None, "string"),
    ],
    ids=range(9),
)
def test_content_that_cannot_be_kept_is_refused_with_the_reason(content: object, reason: str):
    assert reason in refusal(text.Content, content)


@given(st.text(max_size=200))
def test_the_size_of_a_text_is_what_a_frame_spends_on_it(value: str):
    try:
        expected = len(orjson.dumps({"c": value})) - len(b'{"c":""}')
    except orjson.JSONEncodeError:  # a lone surrogate
        return
    assert json_bytes(value) == expected


def test_the_largest_content_leaves_room_in_a_frame():
    # The rest of a message: 100 ids of 128 bytes in its reactions, the sender, ids and times.
    assert text.MAX_CONTENT_BYTES + 100 * 131 + 20 * 110 + 2_000 + 1_500 < MAX_FRAME_BYTES


@pytest.mark.parametrize("kind,most", [(text.Title, 200), (text.Name, 100)], ids=["title", "name"])
def test_titles_and_names_are_one_line(kind: Any, most: int):
    for good in ("x", "Ann O'Brien", "名前", "a" * most, "😀" * most):
        assert check(kind, good) == good
    for bad in ("", "a" * (most + 1), "a\nb", "a\rb", "a\0", "a\x1b[31m", "a\x7f", "a\x85b", "a\u2028b", "\udc00", 1):
        refusal(kind, bad)


@pytest.mark.parametrize("value", ["ann", "a" * 128, "auth0|5f7c", "a.b_c:d@e|f+g=h-i", "0"])
def test_ids_of_the_host_app_are_taken(value: str):
    assert check(text.UserId, value) == value


@pytest.mark.parametrize("value", ["", "a" * 129, "a b", "a\n", "\na", "a/b", "a*", "[a]", "é", "a\0", 7, None, ["a"]])
def test_other_ids_are_refused(value: object):
    refusal(text.UserId, value)


@pytest.mark.parametrize("value", ["👍", "👩‍👩‍👧‍👦", ":shipit:", "x" * 64])
def test_an_emoji_is_short(value: str):
    assert check(text.Emoji, value) == value


@pytest.mark.parametrize("value", ["", " ", "a b", "\0", "\n", "👍" * 17, "x" * 65, "\ufffd", chr(0xD83D)])
def test_other_texts_are_no_emoji(value: str):
    refusal(text.Emoji, value)


@pytest.mark.parametrize("value", ["0", "1", "50", "9223372036854775807"])
def test_a_number_in_a_query_is_plain_digits(value: str):
    assert check(text.QuerySeq, value) == int(value)


@pytest.mark.parametrize(
    "value",
    ["", " 1", "1 ", "+5", "-1", "1_0", "1.0", "1e3", "0x1", "05", "٣", "1\n", "9223372036854775808", "9" * 5000, True],
)
def test_a_number_in_a_query_is_nothing_else(value: object):
    refusal(text.QuerySeq, value)


@pytest.mark.parametrize("kind,most", [(text.PageLimit, 100), (text.ChangesLimit, 200)], ids=["page", "changes"])
def test_a_limit_above_the_maximum_is_refused_and_not_cut(kind: Any, most: int):
    assert check(kind, str(most)) == most
    for bad in ("0", str(most + 1), "-1"):
        refusal(kind, bad)


@pytest.mark.parametrize("value", ["5", 5.0, 1.5, True, -1, 2**63, 1.8446744073709552e19, None])
def test_a_seq_in_a_body_is_an_integer_of_json(value: object):
    assert check(text.Seq, 2**63 - 1) == 2**63 - 1
    refusal(text.Seq, value)


@pytest.mark.parametrize("value", [1, 0, "true", "yes", None])
def test_a_flag_is_true_or_false(value: object):
    assert check(text.Flag, True) is True
    refusal(text.Flag, value)


def test_an_id_has_one_spelling():
    value = "0190b5a4-7c3e-7d2a-9f6b-0123456789ab"
    assert str(check(text.Id, value)) == value
    assert str(check(text.Id, value.upper())) == value
    for bad in (value.replace("-", ""), "{" + value + "}", "urn:uuid:" + value, value + "\n", "", 7, value[:-1] + "g"):
        assert "UUID" in refusal(text.Id, bad)


@pytest.mark.parametrize(
    "value,utc",
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31t12:00:00.5z", "2026-01-31T12:00:00.500000+00:00"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00+00:00"),
    ],
)
def test_a_time_is_taken_with_its_offset(value: str, utc: str):
    assert TypeAdapter(text.Time).validate_python(value).isoformat() == utc


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T12:00:00",
        "2026-01-31",
        "2026-02-30T12:00:00Z",
        "2026-01-31 12:00:00Z",
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00+14:00",
        "1700000000",
        1_800_000_000,
        None,
    ],
)
def test_a_time_without_a_place_on_the_clock_is_refused(value: object):
    assert "RFC 3339" in refusal(text.Time, value)


@pytest.mark.parametrize("kind", ["UserId", "Title", "Name", "WebUrl", "Emoji", "Id", "Time", "QuerySeq", "Content"])
def test_no_refusal_repeats_what_was_sent(kind: str):
    for value in (f"{CANARY}\0", f"\ud800{CANARY}", CANARY * 2000):
        assert CANARY not in refusal(getattr(text, kind), value)


def test_a_field_that_is_not_known_is_refused():
    class Body(text.RequestModel):
        title: text.Title | None = None

    with pytest.raises(ValidationError):
        Body.model_validate({"title": "a", "tilte": "b"})
