import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.auth import Authenticator
from app.errors import UnauthorizedError, UnavailableError
from app.jwks import KeySet, read_keys
from tests.unit.forging import SECRET, SIGNING_KEY, claims, settings, signed, unsigned

_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_RSA_PUBLIC = _RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Provider:
    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None
    fetches: int = 0


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    state = Provider()

    async def answer(_: web.Request) -> web.Response:
        state.fetches += 1
        body = state.body if state.body is not None else orjson.dumps({"keys": state.keys})
        return web.Response(body=body, status=state.status)

    app = web.Application()
    app.router.add_get("/keys", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    state.url = f"http://{host}:{port}/keys"
    yield state
    await runner.cleanup()


@pytest.fixture
async def published(provider: Provider) -> AsyncIterator[Authenticator]:
    authenticator = Authenticator(settings(auth_jwt_secret=None, auth_jwks_url=provider.url), SIGNING_KEY)
    yield authenticator
    await authenticator.close()


def public(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    algorithms = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((alg for kind, alg in algorithms.items() if isinstance(key, kind)), "EdDSA")
    algorithm: Any = jwt.get_algorithm_by_name(name)
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}


KEYS: dict[str, Any] = {
    "RS256": _RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def token_by(algorithm: str, kid: str | None = "k1", key: Any = None, **changes: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**changes), key or KEYS[algorithm], algorithm=algorithm, headers=headers)


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_token_of_a_published_key_is_accepted(provider: Provider, published: Authenticator, algorithm: str):
    provider.keys = [public(KEYS[algorithm], "k1", use="sig")]
    assert (await published.bearer(token_by(algorithm))).user_id == "ann"
    assert (await published.bearer(token_by(algorithm, kid=None))).user_id == "ann"


async def test_a_published_key_is_no_shared_secret(provider: Provider, published: Authenticator):
    provider.keys = [public(_RSA, "k1")]
    for secret in (_RSA_PUBLIC.decode(), orjson.dumps(provider.keys[0]).decode(), SECRET):
        with pytest.raises(UnauthorizedError):
            await published.bearer(signed(claims(), secret, kid="k1"))
    with pytest.raises(UnauthorizedError):
        await published.bearer(unsigned(kid="k1"))


async def test_a_key_serves_its_own_algorithm_only(provider: Provider, published: Authenticator):
    provider.keys = [public(_RSA, "k1")]
    for algorithm in ("PS256", "RS384", "RS512"):
        with pytest.raises(UnauthorizedError):
            await published.bearer(token_by(algorithm, key=_RSA))
    with pytest.raises(UnauthorizedError):
        await published.bearer(token_by("ES256"))


async def test_a_rotated_key_is_fetched_and_the_old_one_forgotten(provider: Provider, published: Authenticator):
    new = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    provider.keys = [public(_RSA, "k1")]
    await published.bearer(token_by("RS256"))
    provider.keys = [public(new, "k2")]
    assert published._keys is not None
    published._keys._cool_down_seconds = 0
    assert (await published.bearer(token_by("RS256", kid="k2", key=new))).user_id == "ann"
    with pytest.raises(UnauthorizedError):
        await published.bearer(token_by("RS256", sub="bob"))


async def test_a_thousand_unknown_keys_cost_one_fetch_and_good_tokens_pass(
    provider: Provider, published: Authenticator
):
    provider.keys = [public(_RSA, "k1")]
    forged = [signed(claims(), alg="RS256", kid=f"random-{n}") for n in range(1000)]
    results = await asyncio.gather(*map(published.bearer, forged), return_exceptions=True)
    assert {type(result) for result in results} == {UnauthorizedError}
    assert provider.fetches == 1
    assert (await published.bearer(token_by("RS256"))).user_id == "ann"
    assert provider.fetches == 1


@pytest.mark.parametrize("failure", [{"status": 500}, {"body": b"<html>"}, {"body": b'{"keys":[]}'}, {"status": 302}])
async def test_a_failing_provider_does_not_cost_the_keys_that_are_held(
    provider: Provider, published: Authenticator, failure: dict[str, Any]
):
    provider.keys = [public(_RSA, "k1")]
    await published.bearer(token_by("RS256"))
    assert published._keys is not None
    published._keys._cool_down_seconds = 0
    for name, value in failure.items():
        setattr(provider, name, value)
    with pytest.raises(UnauthorizedError):
        await published.bearer(token_by("RS256", kid="other"))
    assert provider.fetches == 2
    assert (await published.bearer(token_by("RS256", sub="bob"))).user_id == "bob"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[{}]}', b" " * 300_000])
async def test_without_any_key_the_server_says_that_it_cannot_tell(
    provider: Provider, published: Authenticator, body: bytes
):
    provider.body = body
    with pytest.raises(UnavailableError):
        await published.bearer(token_by("RS256"))


async def test_a_provider_that_is_away_is_not_waited_for():
    keys = KeySet("http://127.0.0.1:1/keys")
    with pytest.raises(UnavailableError):
        await keys.find("RS256", "k1")
    await keys.close()


@pytest.mark.parametrize("url", ["http://id.example.com/keys", "ftp://localhost/keys", "file:///keys", "keys"])
def test_keys_come_by_https_only(url: str):
    with pytest.raises(ValueError, match="https"):
        KeySet(url)


def test_keys_that_cannot_be_trusted_are_skipped():
    good = public(_RSA, "good")
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - the point
    bad: list[Any] = [
        public(weak, "weak"),
        public(_RSA, "for encryption", use="enc"),
        public(_RSA, "other algorithm", alg="PS256"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        {"kty": "RSA", "kid": "empty"},
        {"kty": ["RSA"], "kid": "list"},
        7,
        None,
    ]
    keys = read_keys(orjson.dumps({"keys": [*bad, good]}))
    assert [key.key_id for key in keys] == ["good"]
