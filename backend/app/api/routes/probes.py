"""What orchestrators and Prometheus ask: is the process alive, may it get traffic, how is it doing.

Probes come often and from everywhere, so `/ready` asks PostgreSQL once a second at most, however many ask.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.deps import Services, ServicesOf
from app.db import migrate
from app.errors import NotFoundError, UnavailableError
from app.observability import metrics_text

ANSWER_SECONDS = 1.0  # a PostgreSQL slower than this is not one to send traffic to
CACHE_SECONDS = 1.0
METRICS_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # the exposition format that has # HELP and # TYPE

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """The process runs and its event loop turns."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether to send traffic here, and part by part why not."""

    status: Literal["ready", "degraded", "not_ready"] = Field(
        description="`degraded`: messages are still delivered, up to about two seconds late."
    )
    postgresql: Literal["up", "down"]
    redis: Literal["up", "down"]
    migrations: Literal["current", "outdated", "unknown"]
    draining: bool


@router.head("/health", include_in_schema=False)
@router.get("/health", operation_id="get_health", summary="Is the process alive")
async def get_health() -> Health:
    """Answer as long as the event loop does. Asks nobody: a restart would mend no database."""
    return Health()


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    operation_id="get_readiness",
    summary="May it get traffic",
    responses={503: {"model": Readiness, "description": "Send traffic elsewhere."}},
)
async def get_readiness(request: Request, response: Response, services: ServicesOf) -> Readiness:
    """Ready when PostgreSQL answers within a second, the schema is current, and nothing is being drained.

    Without Redis it is `degraded` and still ready: what is sent is committed, and delivered by head checks.
    """
    database = await _database_check(request).current(services)
    is_ready = database.is_current and not services.is_draining()
    redis_is_up = services.redis_is_up()
    response.headers["cache-control"] = "no-store"
    response.status_code = 200 if is_ready else 503
    return Readiness(
        status="not_ready" if not is_ready else "ready" if redis_is_up else "degraded",
        postgresql="up" if database.is_up else "down",
        redis="up" if redis_is_up else "down",
        migrations="unknown" if not database.is_up else "current" if database.is_current else "outdated",
        draining=services.is_draining(),
    )


@router.get("/metrics", include_in_schema=False)
async def get_metrics(services: ServicesOf) -> Response:
    """Give the metrics on the main port, in development only: elsewhere METRICS_PORT is for them."""
    if services.settings.is_production:
        raise NotFoundError
    return Response(metrics_text(), media_type=METRICS_MEDIA_TYPE)


@dataclass(frozen=True, slots=True)
class _DatabaseState:
    is_up: bool
    is_current: bool


class _DatabaseCheck:
    """Asks PostgreSQL once for all probes of a second."""

    def __init__(self) -> None:
        self._state = _DatabaseState(is_up=False, is_current=False)
        self._valid_until = 0.0
        self._asking = asyncio.Lock()

    async def current(self, services: Services) -> _DatabaseState:
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() >= self._valid_until:
                self._state = await _ask(services)
                self._valid_until = loop.time() + CACHE_SECONDS
            return self._state


def _database_check(request: Request) -> _DatabaseCheck:
    state = request.app.state
    if not hasattr(state, "database_check"):
        state.database_check = _DatabaseCheck()
    check: _DatabaseCheck = state.database_check
    return check


async def _ask(services: Services) -> _DatabaseState:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            revision = await migrate.current_revision(services.database)
    except (UnavailableError, TimeoutError):
        return _DatabaseState(is_up=False, is_current=False)
    return _DatabaseState(is_up=True, is_current=migrate.is_recent(revision))
