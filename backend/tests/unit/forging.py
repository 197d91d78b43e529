"""Tokens as a host app signs them, and as somebody else would."""

import base64
import hashlib
import hmac
import time
from typing import Any

import orjson

from app.settings import Settings

SECRET = "s" * 32
SIGNING_KEY = "k" * 64


def settings(**values: Any) -> Settings:
    given: dict[str, Any] = {
        "app_env": "development",
        "auth_jwt_secret": SECRET,
        "auth_jwks_url": None,
        "cors_origins": ("https://app.example.com",),
    }
    return Settings(**given | values)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {"sub": "ann", "iat": now - 5, "exp": now + 600} | changes
    return {key: value for key, value in given.items() if value is not ...}


def signed(payload: dict[str, Any], secret: str = SECRET, **header: Any) -> str:
    """Sign anything at all, also what the library would refuse to write."""
    header = {"alg": "HS256", "typ": "JWT"} | header
    header = {key: value for key, value in header.items() if value is not ...}
    return hs256(orjson.dumps(header), orjson.dumps(payload), secret.encode())


def hs256(header: bytes, payload: bytes, secret: bytes) -> str:
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    signature = hmac.digest(secret, text, hashlib.sha256)
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def unsigned(*, kid: str = "k1", **changes: Any) -> str:
    header = orjson.dumps({"alg": "none", "typ": "JWT", "kid": kid})
    return hs256(header, orjson.dumps(claims(**changes)), b"").rpartition(".")[0] + "."
