"""The paths that more than one file must agree on."""

from __future__ import annotations

from typing import Final

API_PREFIX: Final = "/api/v1"
SEND_PATH: Final = f"{API_PREFIX}/messages/send"
STREAM_PATH: Final = f"{API_PREFIX}/messages/stream"
