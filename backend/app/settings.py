"""Every setting, read once from the environment. Unsafe or unknown values end the start with a sentence."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIN_SECRET_BYTES = 32  # RFC 7518, 3.2: an HS256 key is at least as long as its hash


class AppEnv(StrEnum):
    """Development opens doors that production keeps shut: `/dev`, `/metrics` on the main port."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


def _words(value: object) -> object:
    """Split "a, b c" at commas and blanks."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]


class Settings(BaseSettings):
    """The settings in force. Names are those of the environment variables, in capitals there."""

    # `NAME=` in an environment file is the same as no line.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, case_sensitive=False, env_ignore_empty=True)

    app_env: AppEnv = Field(AppEnv.PRODUCTION, description="`gapless dev` sets development; nothing else should.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Prometheus metrics, on 127.0.0.1; each worker adds its number. Unset: no metrics port.",
    )
    workers: int = Field(1, ge=1, le=64, description="Processes of `gapless serve`. One per core is a good start.")
    database_url: str | None = Field(
        None, description="postgresql://user:password@host/database. `gapless dev` starts its own when unset."
    )
    redis_url: str | None = Field(
        None, description="redis://, rediss:// or unix://, Redis or Valkey. `gapless dev` starts its own when unset."
    )
    auth_jwt_secret: SecretStr | None = Field(
        None, description="Secret your app signs its users' tokens with (HS256), 32 bytes or more."
    )
    auth_jwks_url: str | None = Field(
        None, description="Where your identity provider publishes its keys (RS256, ES256, EdDSA). Not with a secret."
    )
    auth_issuer: str | None = Field(None, description="Required `iss` of a token, when set.")
    auth_audience: str | None = Field(None, description="Required `aud` of a token, when set.")
    server_api_key: SecretStr | None = Field(
        None, description="Key of your app's server (X-API-Key), 32 bytes or more. Unset: no server API."
    )
    cors_origins: Words = Field((), description="Exact origins that may call from a browser, separated by commas.")
    allowed_hosts: Words = Field(
        ("*",), description="Host names that are answered, `*.example.com` for all below one; `*` for any."
    )
    trusted_proxies: Words = Field(
        ("127.0.0.1",), description="Addresses whose X-Forwarded-For and X-Forwarded-Proto are believed."
    )
    stream_cookie_samesite: Literal["lax", "none"] = Field(
        "lax", description="`none` when the page is on another site than this server; it needs HTTPS."
    )
    max_group_members: int = Field(1000, ge=2, le=10_000, description="Members a group may have.")
    max_streams_per_user: int = Field(
        20, ge=1, le=1000, description="Open streams a user may have in one process; past it the oldest is closed."
    )
    heartbeat_seconds: float = Field(
        10, ge=0.5, le=30, description="Pause between heartbeats; also the longest a lost notification goes unnoticed."
    )
    inbox_retention_days: int = Field(
        90,
        ge=1,
        le=36_500,
        description="How long a client may be away and still be brought up to date from its cursor.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line logged.")

    @model_validator(mode="after")
    def _refuse_what_is_unsafe(self) -> Self:
        if self.auth_jwt_secret and self.auth_jwks_url:
            msg = "Set AUTH_JWT_SECRET or AUTH_JWKS_URL, not both: a token must be checked by one family of algorithms."
            raise ValueError(msg)
        for name in ("auth_jwt_secret", "server_api_key"):
            secret = getattr(self, name)
            if secret is None:
                continue
            if len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
                msg = f"{name.upper()} is shorter than {MIN_SECRET_BYTES} bytes; make one with: openssl rand -hex 32"
                raise ValueError(msg)
            if self.is_production and secret.get_secret_value().startswith(DEVELOPMENT_SECRET_PREFIX):
                msg = f"{name.upper()} is a development secret; production needs one of its own: openssl rand -hex 32"
                raise ValueError(msg)
        if self.is_production and not (self.auth_jwt_secret or self.auth_jwks_url):
            msg = "Set AUTH_JWT_SECRET (HS256) or AUTH_JWKS_URL: without one no user can sign in."
            raise ValueError(msg)
        if self.is_production and not (self.database_url and self.redis_url):
            msg = "Set DATABASE_URL and REDIS_URL: the embedded servers belong to `gapless dev`."
            raise ValueError(msg)
        if any(not _is_origin(origin) for origin in self.cors_origins):
            msg = "CORS_ORIGINS takes exact origins such as https://app.example.com: no *, no null, no path."
            raise ValueError(msg)
        return self

    @cached_property
    def is_production(self) -> bool:
        """Whether the doors of development are shut."""
        return self.app_env is AppEnv.PRODUCTION


DEVELOPMENT_SECRET_PREFIX = "development-"  # noqa: S105 - a mark by which production refuses it, no secret


def _is_origin(text: str) -> bool:
    """Whether `text` is scheme://host[:port] and nothing more (RFC 6454, 6.2)."""
    scheme, separator, authority = text.partition("://")
    return scheme in {"http", "https"} and bool(separator and authority) and not set(authority) & set("/*?#@ ")
