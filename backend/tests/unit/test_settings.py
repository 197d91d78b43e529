from typing import Any

import pytest
from pydantic import ValidationError

from app.api.routes.dev import is_offered
from app.settings import DEVELOPMENT_SECRET_PREFIX, Settings

PRODUCTION: dict[str, str] = {
    "AUTH_JWT_SECRET": "s" * 32,
    "DATABASE_URL": "postgresql://gapless@db/gapless",
    "REDIS_URL": "redis://redis:6379",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def read(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> Settings:
    for name, value in (PRODUCTION | changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return Settings()


def sentence(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> str:
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, **changes)
    return str(caught.value)


def test_production_is_what_one_gets_without_asking(monkeypatch: pytest.MonkeyPatch):
    settings = read(monkeypatch)
    assert settings.is_production
    assert not is_offered(settings)
    assert settings.cors_origins == ()
    assert settings.host == "127.0.0.1"


@pytest.mark.parametrize("missing", PRODUCTION)
def test_production_does_not_start_without_its_servers_and_its_secret(monkeypatch: pytest.MonkeyPatch, missing: str):
    assert missing in sentence(monkeypatch, **{missing: None})
    assert missing in sentence(monkeypatch, **{missing: ""})


@pytest.mark.parametrize("name", ["AUTH_JWT_SECRET", "SERVER_API_KEY"])
def test_a_short_secret_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str):
    assert "openssl rand" in sentence(monkeypatch, **{name: "canary"})


def test_a_secret_is_not_shown_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch):
    assert "ssss" not in repr(read(monkeypatch))


@pytest.mark.parametrize("name", ["AUTH_JWT_SECRET", "SERVER_API_KEY"])
def test_a_development_secret_does_not_open_production(monkeypatch: pytest.MonkeyPatch, name: str):
    secret = DEVELOPMENT_SECRET_PREFIX + "x" * 32
    assert "development secret" in sentence(monkeypatch, **{name: secret})
    assert not read(monkeypatch, **{name: secret}, APP_ENV="development").is_production


def test_tokens_are_checked_by_one_family_of_algorithms(monkeypatch: pytest.MonkeyPatch):
    assert "not both" in sentence(monkeypatch, AUTH_JWKS_URL="https://id.example.com/keys")
    read(monkeypatch, AUTH_JWKS_URL="https://id.example.com/keys", AUTH_JWT_SECRET=None)


def test_a_blank_value_is_the_same_as_none(monkeypatch: pytest.MonkeyPatch):
    blank = {name.upper(): "" for name in Settings.model_fields if name.upper() not in PRODUCTION}
    assert read(monkeypatch, **blank) == read(monkeypatch, **dict.fromkeys(blank))


def test_lists_are_separated_by_commas_or_blanks(monkeypatch: pytest.MonkeyPatch):
    settings = read(monkeypatch, CORS_ORIGINS="https://a.example, http://localhost:5173", ALLOWED_HOSTS="a b")
    assert settings.cors_origins == ("https://a.example", "http://localhost:5173")
    assert settings.allowed_hosts == ("a", "b")


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "https://*.example.com",
        "https://a.example/",
        "https://a.example/x",
        "a.example",
        "ftp://a",
        "https://",
    ],
)
def test_origins_are_exact(monkeypatch: pytest.MonkeyPatch, origin: str):
    assert "exact origins" in sentence(monkeypatch, CORS_ORIGINS=origin)


@pytest.mark.parametrize(
    "name,value",
    [
        ("PORT", "70000"),
        ("PORT", "http"),
        ("WORKERS", "0"),
        ("HEARTBEAT_SECONDS", "0"),
        ("HEARTBEAT_SECONDS", "nan"),
        ("MAX_GROUP_MEMBERS", "1"),
        ("MAX_STREAMS_PER_USER", "0"),
        ("INBOX_RETENTION_DAYS", "-1"),
        ("STREAM_COOKIE_SAMESITE", "strict"),
        ("LOG_LEVEL", "loud"),
        ("APP_ENV", "staging"),
    ],
)
def test_a_value_out_of_range_ends_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    assert name.lower() in sentence(monkeypatch, **{name: value})


@pytest.mark.parametrize(
    "values,offered",
    [
        ({"app_env": "development", "host": "127.0.0.1"}, True),
        ({"app_env": "development", "host": "localhost"}, True),
        ({"app_env": "development", "host": "::1"}, True),
        ({"app_env": "development", "host": "0.0.0.0"}, False),
        ({"app_env": "development", "host": "::"}, False),
        ({"app_env": "development", "host": "192.168.1.5"}, False),
        ({"app_env": "development", "host": "localhost.evil.com"}, False),
    ],
)
def test_tokens_for_the_asking_exist_on_this_machine_only(values: dict[str, Any], offered: bool):
    assert is_offered(Settings(**values)) is offered
