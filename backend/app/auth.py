"""Who is calling: checks the tokens of the host app, and signs what opens a stream.

Nothing here reads the database. That a user exists and was not revoked is for `UserService` to say,
which every caller of `bearer` and `stream` asks next.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import jwt

from app.errors import FieldError, ForbiddenError, InvalidRequestError, UnauthorizedError
from app.jwks import ALGORITHMS, KeySet
from app.lru import ExpiringLru
from app.origins import RawHeaders, header_values, is_own_origin, normal_origin
from app.text_rules import is_name, is_user_id, is_web_url

if TYPE_CHECKING:
    from app.settings import Settings

LEEWAY = timedelta(seconds=30)  # for an issuer's clock ahead of ours: `iat` and `nbf`, never `exp`
MAX_TOKEN_CHARACTERS = 8192
CACHED_TOKENS = 10_000
CACHED_TOKEN_SECONDS = 60
COOKIE_LIFETIME = timedelta(hours=24)
MAX_COOKIES_TRIED = 8
TICKET_LIFETIME = timedelta(seconds=30)
COOKIE_USE = "gapless:stream-cookie"
TICKET_USE = "gapless:stream-ticket"

_PUBLISHED = frozenset(ALGORITHMS.values())

# What a token of somebody else's making can do to the library that reads it.
_UNREADABLE = (jwt.PyJWTError, ArithmeticError, LookupError, OSError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, and by which token. Times are UTC, in whole seconds.

    `issued_at` and `expires_at` are None only for the host's server, acting for the user by X-Act-As.
    """

    user_id: str
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    name: str | None = None
    avatar_url: str | None = None


class Authenticator:
    """Checks credentials. Every method raises UnauthorizedError for one that is not valid."""

    def __init__(self, settings: Settings, signing_key: str) -> None:
        """Take the settings, and `signing_key` of the table `meta` for cookies and tickets."""
        secret, server_key = settings.auth_jwt_secret, settings.server_api_key
        self._secret = secret.get_secret_value() if secret else None
        self._keys = KeySet(settings.auth_jwks_url) if settings.auth_jwks_url else None
        self._issuer = settings.auth_issuer
        self._audience = settings.auth_audience
        self._server_key = _digest(server_key.get_secret_value()) if server_key else None
        self._origins = frozenset(filter(None, map(normal_origin, settings.cors_origins)))
        self._signing_key = signing_key
        self._checked: ExpiringLru[str, Principal] = ExpiringLru(CACHED_TOKENS, seconds=CACHED_TOKEN_SECONDS)

    async def close(self) -> None:
        """Close the connection to the identity provider, if there is one."""
        if self._keys is not None:
            await self._keys.close()

    async def bearer(self, token: str) -> Principal:
        """Check a token of the host app (RFC 7519, RFC 8725).

        A token that was checked in the last minute is not checked again: the signature of the same
        text stays valid until it expires. Raises UnavailableError when no key could be fetched.
        """
        principal = self._checked.get(token)
        if principal is None:
            principal = await self._check(token)
            self._checked.put(token, principal, seconds=_seconds_left(principal))
        return principal

    def server_key(self, text: str) -> bool:
        """Whether `text` is SERVER_API_KEY; takes as long for one answer as for the other."""
        return self._server_key is not None and hmac.compare_digest(_digest(text), self._server_key)

    # --- The stream ------------------------------------------------------------------------------

    async def stream(self, headers: RawHeaders, query: Mapping[str, str], *, scheme: str = "http") -> Principal:
        """Say who opens a stream: `?ticket=`, else bearer, else the cookie of `?user_id=`.

        Raises InvalidRequestError without a `user_id`, ForbiddenError for a page of another origin,
        UnauthorizedError for a credential that is not of `user_id`.
        """
        headers = list(headers)
        user_id = query.get("user_id")
        if not is_user_id(user_id):
            raise InvalidRequestError(FieldError("user_id", "is required, and must be a user id"))
        authorization = header_values(headers, b"authorization")
        if "ticket" in query:
            principal = self.read_ticket(query["ticket"])
        elif authorization:
            principal = await self.bearer(token_of(authorization[0]))
        else:
            self._require_known_page(headers, scheme)
            principal = self._cookie_of(user_id, headers)
        # A second sign-in in the same browser must not turn one user's stream into another's.
        if principal.user_id != user_id:
            raise UnauthorizedError
        return principal

    def sign_cookie(self, principal: Principal) -> tuple[str, datetime]:
        """Sign the stream cookie: as good as the token, for 24 h at most. Gives its value and its end."""
        now = _now().replace(microsecond=0)
        expires_at = min(principal.expires_at or now + COOKIE_LIFETIME, now + COOKIE_LIFETIME)
        return self._sign(principal, COOKIE_USE, expires_at), expires_at

    def sign_ticket(self, principal: Principal) -> tuple[str, datetime]:
        """Sign a ticket that opens a stream within 30 s; the stream then lasts as long as the token."""
        now = _now().replace(microsecond=0)
        expires_at = min(principal.expires_at or now + TICKET_LIFETIME, now + TICKET_LIFETIME)
        return self._sign(principal, TICKET_USE, expires_at), expires_at

    def read_cookie(self, text: str) -> Principal:
        """Check the value of a stream cookie."""
        return self._read(text, COOKIE_USE)

    def read_ticket(self, text: str) -> Principal:
        """Check a ticket."""
        return self._read(text, TICKET_USE)

    # --- Steps -----------------------------------------------------------------------------------

    async def _check(self, token: str) -> Principal:
        if not token.isascii() or len(token) > MAX_TOKEN_CHARACTERS:
            raise UnauthorizedError
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key = await self._key_for(header)
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "sub"], "verify_aud": self._audience is not None},
            )
            principal = _principal(claims, expires_at=claims["exp"])
        except _UNREADABLE as error:
            raise UnauthorizedError from error
        if _seconds_left(principal) <= 0:
            raise UnauthorizedError
        return principal

    async def _key_for(self, header: Mapping[str, Any]) -> tuple[str, str | jwt.PyJWK]:
        """Choose by the settings; of a token's header only `alg` and `kid` are read, to pick among ours.

        `jku`, `jwk`, `x5u` and `x5c` are a stranger's offer of a key: ignored. `crit` asks for an
        extension, and there is none here (RFC 7515, 4.1.11).
        """
        kind, algorithm, key_id = header.get("typ"), header.get("alg"), header.get("kid")
        if "crit" in header or not (kind is None or (isinstance(kind, str) and kind.upper() == "JWT")):
            raise UnauthorizedError
        if self._secret is not None and algorithm == "HS256":
            return algorithm, self._secret
        if self._keys is not None and isinstance(algorithm, str) and algorithm in _PUBLISHED:
            key = await self._keys.find(algorithm, key_id)
            if key is not None:
                return algorithm, key
        raise UnauthorizedError

    def _require_known_page(self, headers: RawHeaders, scheme: str) -> None:
        """Refuse other pages before any work: the browser sends the cookie for same-site ones, too."""
        hosts = header_values(headers, b"host")
        host = hosts[0] if len(hosts) == 1 else None
        origins = header_values(headers, b"origin")
        for origin in origins:
            if origin not in self._origins and not is_own_origin(origin, host=host, scheme=scheme):
                raise ForbiddenError("This page may not open a stream with a cookie.")
        # EventSource names its page whenever that is another one; an image or a link does not.
        if not origins and set(header_values(headers, b"sec-fetch-site")) & {"cross-site", "same-site"}:
            raise ForbiddenError("This page may not open a stream with a cookie.")

    def _cookie_of(self, user_id: str, headers: RawHeaders) -> Principal:
        prefix = cookie_name(user_id) + "="
        refusal = UnauthorizedError()
        pairs = (pair.strip() for line in header_values(headers, b"cookie") for pair in line.split(";"))
        own = (pair.removeprefix(prefix) for pair in pairs if pair.startswith(prefix))
        # A sibling subdomain can plant cookies of this name beside ours: try each, but not for ever.
        for value in islice(own, MAX_COOKIES_TRIED):
            try:
                return self.read_cookie(value)
            except UnauthorizedError as error:
                refusal = error
        raise refusal

    def _sign(self, principal: Principal, use: str, expires_at: datetime) -> str:
        # What the host's server opens for a user is revoked like a token issued now.
        issued_at = principal.issued_at or _now()
        until = principal.expires_at or issued_at + COOKIE_LIFETIME
        claims = {
            "aud": use,
            "sub": principal.user_id,
            "iat": int(issued_at.timestamp()),
            "exp": int(expires_at.timestamp()),
            "until": int(until.timestamp()),
        }
        return jwt.encode(claims, self._signing_key, algorithm="HS256")

    def _read(self, text: str, use: str) -> Principal:
        if not text.isascii() or len(text) > MAX_TOKEN_CHARACTERS:
            raise UnauthorizedError
        try:
            claims = jwt.decode(
                text,
                self._signing_key,
                algorithms=["HS256"],
                audience=use,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "sub", "aud", "until"]},
            )
            principal = _principal(claims, expires_at=claims["until"])
            ends_at = _time(claims["exp"])
        except _UNREADABLE as error:
            raise UnauthorizedError from error
        if ends_at <= _now() or _seconds_left(principal) <= 0:
            raise UnauthorizedError
        return principal


def cookie_name(user_id: str) -> str:
    """Name the stream cookie of a user: two users in one browser do not evict each other."""
    return f"gapless_stream_{hashlib.sha256(user_id.encode()).hexdigest()[:16]}"


def token_of(authorization: str | None) -> str:
    """Read `Authorization: Bearer <token>` (RFC 6750, 2.1). Raises UnauthorizedError."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError
    return token


def mint_token(
    secret: str,
    user_id: str,
    *,
    name: str | None = None,
    lifetime: timedelta = timedelta(hours=12),
    issuer: str | None = None,
    audience: str | None = None,
) -> str:
    """Make the token that a host app would make: for development and tests."""
    now = _now()
    claims = {"sub": user_id, "iat": now, "exp": now + lifetime}
    optional = {"name": name, "iss": issuer, "aud": audience}
    claims |= {key: value for key, value in optional.items() if value is not None}
    return jwt.encode(claims, secret, algorithm="HS256")


def _principal(claims: Mapping[str, Any], *, expires_at: object) -> Principal:
    """Read verified claims. Raises ValueError; a profile that is no good is left out, not refused."""
    user_id, name, avatar_url = claims["sub"], claims.get("name"), claims.get("picture")
    if not is_user_id(user_id):
        raise ValueError("sub")
    return Principal(
        user_id,
        issued_at=_time(claims["iat"]),
        expires_at=_time(expires_at),
        name=name if is_name(name) else None,
        avatar_url=avatar_url if is_web_url(avatar_url) else None,
    )


def _time(value: object) -> datetime:
    # Whole seconds: revocation compares whole seconds, and a fraction would slip past it.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a NumericDate")  # noqa: TRY004 - caught with the other unreadable claims
    return datetime.fromtimestamp(int(value), UTC)


def _seconds_left(principal: Principal) -> float:
    return (principal.expires_at - _now()).total_seconds() if principal.expires_at else 0.0


def _now() -> datetime:
    return datetime.now(UTC)


def _digest(text: str) -> bytes:
    # Equal lengths, so that comparing tells nothing about the key's own.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
