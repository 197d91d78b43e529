from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.auth import Authenticator, Principal, cookie_name
from app.errors import ForbiddenError, InvalidRequestError, UnauthorizedError
from tests.unit.forging import SIGNING_KEY, claims, settings, signed, unsigned

OWN_PAGE = [(b"host", b"chat.example.com")]


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(settings(), SIGNING_KEY)


def principal(**changes: Any) -> Principal:
    now = datetime.now(UTC).replace(microsecond=0)
    given: dict[str, Any] = {"issued_at": now - timedelta(minutes=1), "expires_at": now + timedelta(hours=1)}
    return Principal(changes.pop("user_id", "ann"), **given | changes)


def cookie_header(authenticator: Authenticator, who: Principal) -> tuple[bytes, bytes]:
    return (b"cookie", f"a=b; {cookie_name(who.user_id)}={authenticator.sign_cookie(who)[0]}; c=d".encode())


async def test_a_cookie_opens_the_stream_of_its_user_with_the_times_of_its_token(authenticator: Authenticator):
    ann = principal()
    headers = [*OWN_PAGE, cookie_header(authenticator, ann)]
    assert await authenticator.stream(headers, {"user_id": "ann"}) == ann


async def test_a_ticket_opens_a_stream_that_lasts_as_long_as_the_token(authenticator: Authenticator):
    ann = principal()
    ticket, expires_at = authenticator.sign_ticket(ann)
    assert timedelta(seconds=25) < expires_at - datetime.now(UTC) <= timedelta(seconds=30)
    assert await authenticator.stream([], {"user_id": "ann", "ticket": ticket}) == ann


async def test_a_bearer_token_opens_a_stream(authenticator: Authenticator):
    headers = [(b"authorization", b"Bearer " + signed(claims()).encode())]
    assert (await authenticator.stream(headers, {"user_id": "ann"})).user_id == "ann"


@pytest.mark.parametrize("query", [{}, {"user_id": ""}, {"user_id": "a b"}, {"user_id": "a" * 129}])
async def test_a_stream_without_a_user_is_refused_by_the_name_of_the_field(
    authenticator: Authenticator, query: dict[str, str]
):
    with pytest.raises(InvalidRequestError) as refusal:
        await authenticator.stream([], query)
    assert [f.field for f in refusal.value.fields] == ["user_id"]


@pytest.mark.parametrize("way", ["cookie", "ticket", "bearer"])
async def test_a_credential_of_another_user_opens_nothing(authenticator: Authenticator, way: str):
    eve = principal(user_id="eve")
    ways: dict[str, tuple[list[tuple[bytes, bytes]], dict[str, str]]] = {
        "cookie": ([cookie_header(authenticator, eve)], {}),
        "ticket": ([], {"ticket": authenticator.sign_ticket(eve)[0]}),
        "bearer": ([(b"authorization", b"Bearer " + signed(claims(sub="eve")).encode())], {}),
    }
    headers, query = ways[way]
    assert (await authenticator.stream([*OWN_PAGE, *headers], {"user_id": "eve", **query})).user_id == "eve"
    with pytest.raises(UnauthorizedError):
        await authenticator.stream([*OWN_PAGE, *headers], {"user_id": "ann", **query})


async def test_a_renamed_cookie_of_another_user_opens_nothing(authenticator: Authenticator):
    value = authenticator.sign_cookie(principal(user_id="eve"))[0]
    headers = [*OWN_PAGE, (b"cookie", f"{cookie_name('ann')}={value}".encode())]
    with pytest.raises(UnauthorizedError):
        await authenticator.stream(headers, {"user_id": "ann"})


async def test_a_bad_ticket_is_not_rescued_by_a_good_cookie(authenticator: Authenticator):
    headers = [*OWN_PAGE, cookie_header(authenticator, principal())]
    with pytest.raises(UnauthorizedError):
        await authenticator.stream(headers, {"user_id": "ann", "ticket": ""})


async def test_a_planted_cookie_does_not_hide_the_good_one(authenticator: Authenticator):
    planted = (b"cookie", f"{cookie_name('ann')}=nonsense".encode())
    headers = [*OWN_PAGE, planted, cookie_header(authenticator, principal())]
    assert (await authenticator.stream(headers, {"user_id": "ann"})).user_id == "ann"


def test_each_credential_is_good_for_its_own_use_only(authenticator: Authenticator):
    ticket, cookie = authenticator.sign_ticket(principal())[0], authenticator.sign_cookie(principal())[0]
    for read, text in [
        (authenticator.read_cookie, ticket),
        (authenticator.read_ticket, cookie),
        (authenticator.read_ticket, signed(claims())),
        (authenticator.read_ticket, ticket[:-3] + "AAA"),
        (authenticator.read_cookie, unsigned(aud="gapless:stream-cookie")),
        (Authenticator(settings(), "x" * 64).read_cookie, cookie),
    ]:
        with pytest.raises(UnauthorizedError):
            read(text)


@pytest.mark.parametrize("use", ["ticket", "cookie"])
async def test_a_stream_credential_is_no_bearer_token(authenticator: Authenticator, use: str):
    text = getattr(authenticator, f"sign_{use}")(principal())[0]
    with pytest.raises(UnauthorizedError):
        await authenticator.bearer(text)


def test_a_ticket_ends_after_thirty_seconds(authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch):
    issued = datetime.now(UTC) - timedelta(seconds=31)
    with monkeypatch.context() as patch:
        patch.setattr("app.auth._now", lambda: issued)
        ticket, _ = authenticator.sign_ticket(principal())
    with pytest.raises(UnauthorizedError):
        authenticator.read_ticket(ticket)


def test_nothing_outlives_its_token(authenticator: Authenticator):
    gone = principal(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    for use in ("cookie", "ticket"):
        text, expires_at = getattr(authenticator, f"sign_{use}")(gone)
        assert expires_at <= datetime.now(UTC)
        with pytest.raises(UnauthorizedError):
            getattr(authenticator, f"read_{use}")(text)


def test_a_cookie_ends_after_a_day_though_the_token_does_not(authenticator: Authenticator):
    year = principal(expires_at=datetime.now(UTC) + timedelta(days=365))
    _, expires_at = authenticator.sign_cookie(year)
    assert expires_at <= datetime.now(UTC) + timedelta(hours=24)


def test_what_the_host_opens_for_a_user_can_be_revoked_like_a_token(authenticator: Authenticator):
    read = authenticator.read_ticket(authenticator.sign_ticket(Principal("ann"))[0])
    assert read.issued_at is not None
    assert read.expires_at is not None


ORIGINS = [
    # origin, Host, scheme of the connection, whether the cookie may be used
    (None, "chat.example.com", "https", True),
    ("https://chat.example.com", "chat.example.com", "https", True),
    ("https://chat.example.com", "chat.example.com", "http", True),  # behind TLS termination
    ("https://chat.example.com:443", "chat.example.com", "https", True),
    ("https://chat.example.com", "chat.example.com:443", "https", True),
    ("http://localhost:8000", "localhost:8000", "http", True),
    ("http://chat.example.com", "chat.example.com:80", "http", True),
    ("https://app.example.com", "chat.example.com", "https", True),  # in CORS_ORIGINS
    ("http://chat.example.com", "chat.example.com", "https", False),
    ("http://localhost:8001", "localhost:8000", "http", False),
    ("https://evil.example.com", "chat.example.com", "https", False),
    ("https://chat.example.com.evil.com", "chat.example.com", "https", False),
    ("https://evilapp.example.com", "chat.example.com", "https", False),
    ("http://app.example.com", "chat.example.com", "https", False),
    ("null", "chat.example.com", "https", False),
    ("", "chat.example.com", "https", False),
    ("https://chat.example.com@evil.com", "chat.example.com", "https", False),
    ("https://chat.example.com", "", "https", False),
]


@pytest.mark.parametrize("origin,host,scheme,is_ours", ORIGINS)
async def test_a_page_of_another_origin_cannot_use_the_cookie(
    origin: str | None, host: str, scheme: str, is_ours: bool
):
    authenticator = Authenticator(settings(), SIGNING_KEY)
    headers = [(b"host", host.encode()), cookie_header(authenticator, principal())]
    if origin is not None:
        headers += [(b"origin", origin.encode()), (b"sec-fetch-site", b"same-origin")]
    if is_ours:
        opened = await authenticator.stream(headers, {"user_id": "ann"}, scheme=scheme)
        assert opened.user_id == "ann"
    else:
        with pytest.raises(ForbiddenError):
            await authenticator.stream(headers, {"user_id": "ann"}, scheme=scheme)


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
async def test_an_image_of_another_site_cannot_use_the_cookie(authenticator: Authenticator, site: str):
    headers = [*OWN_PAGE, cookie_header(authenticator, principal()), (b"sec-fetch-site", site.encode())]
    with pytest.raises(ForbiddenError):
        await authenticator.stream(headers, {"user_id": "ann"})
