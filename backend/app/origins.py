"""Which page asks: pure decisions about the headers Origin and Host (RFC 6454, RFC 9110 7.2)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

RawHeaders = Iterable[tuple[bytes, bytes]]

MAX_AUTHORITY_CHARACTERS = 260
DEFAULT_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?")


def header_values(headers: RawHeaders, name: bytes) -> list[str]:
    """Give every value of a header, in order; ASGI servers send names in lower case."""
    return [value.decode("latin-1") for key, value in headers if key == name]


def combined_headers(headers: RawHeaders) -> dict[str, str]:
    """Give the headers by name, repeated ones joined by commas (RFC 9110, 5.2).

    So a Host, an Origin or a Content-Type that comes twice is none that is known.
    """
    values: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        values[name] = f"{values[name]}, {value}" if name in values else value
    return values


def split_authority(text: str) -> tuple[str, int | None] | None:
    """Split `host[:port]`, in lower case; None for anything that is not exactly that."""
    return _split(text) if len(text) <= MAX_AUTHORITY_CHARACTERS else None


@lru_cache(maxsize=1024)  # one host, asked for with every request
def _split(text: str) -> tuple[str, int | None] | None:
    match = _AUTHORITY.fullmatch(text.lower())
    if match is None:
        return None
    host, port = match[1].removesuffix("."), match[2]
    if not host or (port is not None and int(port) > 65535):  # noqa: PLR2004 - the last port
        return None
    return host, int(port) if port is not None else None


def normal_origin(text: str) -> str | None:
    """Write an http(s) origin as browsers do: lower case, no default port. None if it is none."""
    scheme, separator, authority = text.partition("://")
    scheme = scheme.lower()
    split = split_authority(authority)
    if not separator or scheme not in DEFAULT_PORTS or split is None:
        return None
    host, port = split
    return f"{scheme}://{host}" if port in {None, DEFAULT_PORTS[scheme]} else f"{scheme}://{host}:{port}"


def is_own_origin(origin: str, *, host: str | None, scheme: str) -> bool:
    """Whether `origin` is the server itself, as the client addressed it in `Host`.

    An https origin at an http server is ours behind TLS termination; an http origin at an https server
    never is: anyone on the way could have written that page. A proxy must pass Host on unchanged.
    """
    origin_scheme, _, authority = origin.partition("://")
    ours, theirs = split_authority(host or ""), split_authority(authority)
    if ours is None or theirs is None or origin_scheme not in DEFAULT_PORTS:
        return False
    if origin_scheme == "http" and scheme == "https":
        return False
    default_port = DEFAULT_PORTS[origin_scheme]
    return ours[0] == theirs[0] and (ours[1] or default_port) == (theirs[1] or default_port)


def is_allowed_host(host: str, allowed: Sequence[str]) -> bool:
    """Whether a Host is well formed and named by ALLOWED_HOSTS; its port does not matter."""
    split = split_authority(host)
    if split is None:
        return False
    name = split[0]
    return any(_covers(pattern.lower(), name) for pattern in allowed)


def is_loopback_host(host: str | None) -> bool:
    """Whether a Host, with or without port, can only mean this machine."""
    split = split_authority(host or "")
    return split is not None and (split[0] == "localhost" or is_loopback_address(split[0].strip("[]")))


def is_loopback_address(text: str) -> bool:
    """Whether `text` is an address of 127.0.0.0/8 or ::1, also written as IPv4 in IPv6."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _covers(pattern: str, name: str) -> bool:
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1
    return pattern in {"*", name}
