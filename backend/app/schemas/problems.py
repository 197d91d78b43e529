"""How a refusal looks (RFC 9457), for the OpenAPI document and for every error that is answered."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

PROBLEM_MEDIA_TYPE = "application/problem+json"


class ProblemField(BaseModel):
    """One field of a request that was refused."""

    field: str = Field(examples=["content"])
    message: str = Field(examples=["must not be empty"])


class Problem(BaseModel):
    """Why a request was refused. It never repeats what was sent."""

    type: str = "about:blank"
    title: str = Field(description="The phrase of the status.")
    status: int
    detail: str
    code: str = Field(description="Stable; for programs.")
    request_id: str = Field(description="Also in the header X-Request-ID, and in the server's log.")
    errors: list[ProblemField] | None = Field(None, description="With 422 only.")


_MEANINGS = {
    401: "unauthorized: a valid credential is required",
    403: "forbidden: you may see this, but not change it",
    404: "not_found: absent, or not yours to see",
    409: "idempotency_conflict: the key was used for a different request",
    413: "payload_too_large: the body is larger than 256 KB",
    415: "unsupported_media_type: the body is not application/json",
    422: "invalid_request: `errors` names the fields",
    429: "rate_limited: see Retry-After",
    503: "unavailable: try again with the same key, after Retry-After",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe problems for a route's `responses=`. Every route has 401, 422 and 503."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({401, 422, 503, *statuses})
    }


def describe_in(document: dict[str, Any]) -> None:
    """Put the Problem into an OpenAPI document, in place of FastAPI's own errors, which are never sent."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs"))
    schemas["Problem"] = schema
