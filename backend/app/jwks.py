"""The keys that an identity provider publishes (RFC 7517), fetched without ever blocking the loop."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any
from urllib.parse import urlsplit

import httpx2
import jwt
import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.errors import UnavailableError
from app.origins import is_loopback_host

FETCH_SECONDS = 3
MAX_DOCUMENT_BYTES = 256 * 1024
MAX_KEYS = 100
MIN_RSA_BITS = 2048  # RFC 7518, 3.3
COOL_DOWN_SECONDS = 30  # between two fetches, however many unknown key ids come in
COOL_DOWN_WITHOUT_KEYS_SECONDS = 1
MAX_AGE_SECONDS = 600  # a key that the provider withdraws is forgotten after this at the latest

# The one algorithm that goes with each kind of key; a token cannot choose.
ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}

log = structlog.get_logger(__name__)


class KeySet:
    """The published keys, last good ones kept: a failing provider signs nobody out."""

    def __init__(self, url: str, *, cool_down_seconds: float = COOL_DOWN_SECONDS) -> None:
        """Take the URL; the first `find` fetches. Raises ValueError for http off loopback."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_host(parts.netloc)):
            msg = "AUTH_JWKS_URL must be an https URL: who can change the keys can be every user."
            raise ValueError(msg)
        self._url = url
        self._cool_down_seconds = cool_down_seconds
        self._keys: list[jwt.PyJWK] = []
        self._client: httpx2.AsyncClient | None = None
        self._fetching = asyncio.Lock()
        self._fetched_at = -math.inf
        self._tried_at = -math.inf

    async def close(self) -> None:
        """Close the connection to the provider."""
        if self._client is not None:
            await self._client.aclose()

    async def find(self, algorithm: str, key_id: str | None) -> jwt.PyJWK | None:
        """Give the key that a token names; None when there is none.

        A token without a key id is given a key only if there is just one of its algorithm.
        Raises UnavailableError while not a single key could be fetched.
        """
        key = self._pick(algorithm, key_id)
        is_old = time.monotonic() - self._fetched_at > MAX_AGE_SECONDS
        # For a key that is merely old one request fetches, and the others do not wait for it.
        if key is None or (is_old and not self._fetching.locked()):
            await self._fetch_once()
            key = self._pick(algorithm, key_id)
        if not self._keys:
            raise UnavailableError("The keys of the identity provider cannot be read.")
        return key

    def _pick(self, algorithm: str, key_id: str | None) -> jwt.PyJWK | None:
        fitting = [key for key in self._keys if key.algorithm_name == algorithm]
        if key_id is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.key_id == key_id), None)

    async def _fetch_once(self) -> None:
        # Whoever waited for the lock finds the fetch of the one before, which is too young to repeat.
        async with self._fetching:
            cool_down = self._cool_down_seconds if self._keys else COOL_DOWN_WITHOUT_KEYS_SECONDS
            if time.monotonic() - self._tried_at < cool_down:
                return
            self._tried_at = time.monotonic()
            try:
                async with asyncio.timeout(FETCH_SECONDS):
                    keys = read_keys(await self._download())
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError, ValueError) as error:
                log.warning("jwks_not_fetched", error=type(error).__name__, keys_kept=len(self._keys))
                return
            self._keys = keys
            self._fetched_at = time.monotonic()

    async def _download(self) -> bytes:
        if self._client is None:
            # In a thread: it reads the certificates of all authorities from disk.
            self._client = await asyncio.to_thread(httpx2.AsyncClient, timeout=FETCH_SECONDS)
        body = bytearray()
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != httpx2.codes.OK:  # a redirect, too: it could lead anywhere
                raise ValueError(response.status_code)
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_DOCUMENT_BYTES:
                    raise ValueError(len(body))
        return bytes(body)


def read_keys(document: bytes) -> list[jwt.PyJWK]:
    """Read the public keys of a JWK set that Gapless can use, and skip the others.

    Raises ValueError when there is none: an empty answer is a failure, not an order to refuse everyone.
    """
    parsed = orjson.loads(document)
    entries = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a JWK set")  # noqa: TRY004 - every way to be unreadable is one error
    keys = [key for entry in entries[:MAX_KEYS] if (key := _read_key(entry)) is not None]
    if not keys:
        raise ValueError("no usable key")
    return keys


def _read_key(entry: Any) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    kind, curve = entry.get("kty"), entry.get("crv")
    algorithm = ALGORITHMS.get((kind, curve)) if isinstance(kind, str) else None
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        key = jwt.PyJWK(entry, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
        return None
    return key
