import base64
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.auth import LEEWAY, Authenticator, mint_token, token_of
from app.errors import UnauthorizedError
from tests.unit.forging import SECRET, SIGNING_KEY, claims, hs256, settings, signed, unsigned


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(settings(), SIGNING_KEY)


async def test_a_good_token_names_its_user(authenticator: Authenticator):
    token = signed(claims(name="Ann", picture="https://example.com/ann.png"))
    principal = await authenticator.bearer(token)
    assert (principal.user_id, principal.name) == ("ann", "Ann")
    assert principal.avatar_url == "https://example.com/ann.png"
    assert principal.expires_at is not None
    assert principal.issued_at is not None
    assert principal.expires_at - principal.issued_at == timedelta(seconds=605)


async def test_a_minted_token_is_accepted(authenticator: Authenticator):
    assert (await authenticator.bearer(mint_token(SECRET, "bob", name="Bob"))).name == "Bob"


NOW = int(time.time())
_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)

FORGED: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "no dots": lambda: "token",
    "two parts": lambda: signed(claims()).rpartition(".")[0],
    "four parts": lambda: signed(claims()) + ".x",
    "not ascii": lambda: signed(claims()) + "é",
    "very long": lambda: signed(claims(more="x" * 20_000)),
    "deep header": lambda: hs256(b"[" * 5_000, b"{}", SECRET.encode()),
    "header is a list": lambda: hs256(b"[]", b"{}", SECRET.encode()),
    "payload is a list": lambda: hs256(b'{"alg":"HS256"}', b"[]", SECRET.encode()),
    "payload is no JSON": lambda: hs256(b'{"alg":"HS256"}', b"\xff", SECRET.encode()),
    "alg none": unsigned,
    "alg None with a signature": lambda: signed(claims(), alg="None"),
    "alg absent": lambda: signed(claims(), alg=...),
    "alg in another case": lambda: signed(claims(), alg="hs256"),
    "alg is a list": lambda: signed(claims(), alg=["HS256"]),
    "alg HS384": lambda: jwt.encode(claims(), SECRET * 2, algorithm="HS384"),
    "alg RS256": lambda: jwt.encode(claims(), _RSA, algorithm="RS256"),
    "signed by another secret": lambda: signed(claims(), "t" * 32),
    "signed by the key of cookies": lambda: signed(claims(), SIGNING_KEY),
    "signature altered": lambda: signed(claims())[:-4] + "AAAA",
    "payload altered": lambda: ".".join(
        [*signed(claims()).split(".")[:1], *signed(claims(sub="eve")).split(".")[1:2], "AAAA"]
    ),
    "own key in the header": lambda: signed(
        claims(), "t" * 32, jwk={"kty": "oct", "k": base64.b64encode(b"t" * 32).decode()}
    ),
    "key by address in the header": lambda: signed(
        claims(), "t" * 32, jku="https://evil.example/keys", x5u="https://evil.example/cert"
    ),
    "crit": lambda: signed(claims(), crit=["exp"], exp=NOW),
    "crit that is unknown": lambda: signed(claims(), crit=["x"], x=1),
    "crit that is empty": lambda: signed(claims(), crit=[]),
    "typ of an access token": lambda: signed(claims(), typ="at+jwt"),
    "typ of a logout token": lambda: signed(claims(), typ="logout+jwt"),
    "typ is a number": lambda: signed(claims(), typ=1),
    "kid is a number": lambda: signed(claims(), kid=1),
    "no exp": lambda: signed(claims(exp=...)),
    "no iat": lambda: signed(claims(iat=...)),
    "no sub": lambda: signed(claims(sub=...)),
    "exp is null": lambda: signed(claims(exp=None)),
    "exp is text": lambda: signed(claims(exp=str(NOW + 600))),
    "exp is true": lambda: signed(claims(exp=True)),
    "exp in nanoseconds": lambda: signed(claims(exp=NOW * 10**9)),
    "exp beyond all calendars": lambda: signed(claims(exp=10**15)),
    "exp beyond all numbers": lambda: hs256(b'{"alg":"HS256"}', b'{"sub":"ann","iat":1,"exp":1e999}', SECRET.encode()),
    "exp a second ago": lambda: signed(claims(exp=NOW - 1)),
    "iat is text": lambda: signed(claims(iat=str(NOW))),
    "iat in an hour": lambda: signed(claims(iat=NOW + 3600)),
    "nbf in an hour": lambda: signed(claims(nbf=NOW + 3600)),
    "sub is empty": lambda: signed(claims(sub="")),
    "sub is a number": lambda: signed(claims(sub=7)),
    "sub with a blank": lambda: signed(claims(sub="an n")),
    "sub with a line break at its end": lambda: signed(claims(sub="ann\n")),
    "sub with a pattern of Redis": lambda: signed(claims(sub="*")),
    "sub too long": lambda: signed(claims(sub="a" * 129)),
}


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_refused(authenticator: Authenticator, name: str):
    with pytest.raises(UnauthorizedError) as refusal:
        await authenticator.bearer(FORGED[name]())
    assert refusal.value.detail == UnauthorizedError.__doc__


def test_there_are_at_least_twenty_forgeries():
    assert len(FORGED) >= 20


@pytest.mark.parametrize("changes", [{"iss": "evil"}, {"iss": ...}, {"aud": "other"}, {"aud": ...}, {"aud": []}])
async def test_issuer_and_audience_are_required_when_set(changes: dict[str, Any]):
    strict = Authenticator(settings(auth_issuer="host", auth_audience="chat"), SIGNING_KEY)
    await strict.bearer(signed(claims(iss="host", aud=["chat", "mail"])))
    with pytest.raises(UnauthorizedError):
        await strict.bearer(signed(claims(**{"iss": "host", "aud": "chat"} | changes)))


async def test_an_audience_does_not_matter_when_none_is_set(authenticator: Authenticator):
    assert (await authenticator.bearer(signed(claims(aud="whoever", iss="x")))).user_id == "ann"


async def test_an_issuer_whose_clock_is_ahead_is_forgiven_for_a_moment(authenticator: Authenticator):
    ahead = int(time.time() + LEEWAY.total_seconds() / 2)
    assert (await authenticator.bearer(signed(claims(iat=ahead)))).user_id == "ann"
    assert timedelta(seconds=60) >= LEEWAY


async def test_a_fraction_of_a_second_does_not_outlive_a_revocation(authenticator: Authenticator):
    principal = await authenticator.bearer(signed(claims(iat=NOW - 10 + 0.9)))
    assert principal.issued_at == datetime.fromtimestamp(NOW - 10, UTC)


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", "a\0b", 7, ["Ann"], "a\u2028b"])
async def test_a_bad_name_is_left_out_and_the_token_is_good(authenticator: Authenticator, name: Any):
    assert (await authenticator.bearer(signed(claims(name=name)))).name is None


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:image/png;base64,AA",
        "//example.com/a",
        "https://a b",
        'https://example.com/"><script>',
        "https://example.com/" + "x" * 500,
        7,
    ],
)
async def test_a_bad_picture_is_left_out_and_the_token_is_good(authenticator: Authenticator, url: Any):
    assert (await authenticator.bearer(signed(claims(picture=url)))).avatar_url is None


async def test_a_checked_token_is_remembered_until_it_expires(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
):
    token = signed(claims())
    first = await authenticator.bearer(token)
    clock = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(jwt, "decode", None)
        assert await authenticator.bearer(token) is first
    monkeypatch.setattr(time, "monotonic", lambda: clock + 61)
    assert await authenticator.bearer(token) is not first


async def test_the_memory_of_tokens_is_bounded(authenticator: Authenticator):
    authenticator._checked._limit = 10
    for number in range(30):
        await authenticator.bearer(signed(claims(sub=f"u{number}")))
    assert len(authenticator._checked) == 10


def test_the_server_key_is_compared_whole():
    authenticator = Authenticator(settings(server_api_key="a" * 32), SIGNING_KEY)
    assert authenticator.server_key("a" * 32)
    assert not any(map(authenticator.server_key, ["", "a" * 31, "a" * 33, "A" * 32, "\udcff", "é"]))
    assert not Authenticator(settings(server_api_key=None), SIGNING_KEY).server_key("")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "abc", "Bearerabc"])
def test_only_the_bearer_scheme_carries_a_token(header: str | None):
    with pytest.raises(UnauthorizedError):
        token_of(header)
