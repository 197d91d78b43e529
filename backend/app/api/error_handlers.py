"""Errors become RFC 9457 documents here, whoever raised them: a service, FastAPI, the router, a defect.

A document says which field is wrong and why, and never what was sent: an answer that echoes can be made
to fail by its own content (a lone surrogate), or to carry markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.errors import FieldError, GaplessError, InvalidRequestError, UnavailableError
from app.schemas.problems import PROBLEM_MEDIA_TYPE

STATUS_OF = {
    "invalid_request": 422,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "idempotency_conflict": 409,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "rate_limited": 429,
    "internal_error": 500,
    "unavailable": 503,
}
_CODE_OF = {status: code for code, status in STATUS_OF.items()}

_SENTENCES = {
    404: "There is nothing here.",
    405: "This method is not allowed here; see Allow.",
    429: "Too many requests; see Retry-After.",
    500: "Something went wrong. The server's log has the reason under this request id.",
}

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class RenderedProblem:
    """A problem as ASGI sends it."""

    status: int
    headers: Headers
    body: bytes

    @property
    def messages(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The two messages of the whole response."""
        return (
            {"type": "http.response.start", "status": self.status, "headers": self.headers},
            {"type": "http.response.body", "body": self.body},
        )


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""

    async def answer(request: Request, error: Exception) -> Response:
        problem = problem_of(error, request.scope)
        response = Response(problem.body, problem.status)
        response.raw_headers = problem.headers
        return response

    # Starlette raises an unexpected one again after the answer; the edge, outermost, logs it.
    for kind in (GaplessError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def problem_of(error: Exception, scope: Mapping[str, Any]) -> RenderedProblem:
    """Render any error for the request of `scope`: also for plain ASGI endpoints and the edge."""
    match error:
        case InvalidRequestError():
            return render(error.code, scope, detail=error.detail, fields=error.fields)
        case UnavailableError():
            retry_after = ("retry-after", str(error.retry_after_seconds))
            return render(error.code, scope, detail=error.detail, headers=[retry_after])
        case GaplessError():
            return render(error.code, scope, detail=error.detail)
        case RequestValidationError():
            fields = [_field_error(entry) for entry in error.errors()]
            return problem_of(InvalidRequestError(*fields), scope)
        case HTTPException():
            return _problem_of_status(error, scope)
        case _:
            return render("internal_error", scope)


def render(
    code: str,
    scope: Mapping[str, Any],
    *,
    detail: str | None = None,
    status: int | None = None,
    fields: Iterable[FieldError] = (),
    headers: Iterable[tuple[str, str]] = (),
) -> RenderedProblem:
    """Write a problem document; `status` where it is not the one of `code`."""
    status = status or STATUS_OF.get(code, 500)
    title = HTTPStatus(status).phrase
    problem: dict[str, Any] = {
        "type": "about:blank",  # RFC 9457, 4.2.1: nothing more than the status; `code` tells them apart
        "title": title,
        "status": status,
        "detail": detail or _SENTENCES.get(status, title),
        "code": code,
        "request_id": request_id_of(scope),
    }
    if status == STATUS_OF["invalid_request"]:
        problem["errors"] = [{"field": f.field, "message": f.message} for f in fields]
    body = orjson.dumps(problem)
    raw: Headers = [
        (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == STATUS_OF["unauthorized"]:
        raw.append((b"www-authenticate", b"Bearer"))  # RFC 9110, 11.6.1
    raw += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return RenderedProblem(status, raw, body)


def request_id_of(scope: Mapping[str, Any]) -> str:
    """Give the id that the edge gave to a request."""
    return str(scope.get("state", {}).get("request_id", ""))


def _problem_of_status(error: HTTPException, scope: Mapping[str, Any]) -> RenderedProblem:
    # FastAPI says 400 for a body that it cannot read; here every request that is not valid is a 422.
    code = _CODE_OF.get(error.status_code) or (
        "invalid_request" if error.status_code < 500 else "internal_error"  # noqa: PLR2004
    )
    headers = dict(error.headers or {}).items()
    return render(code, scope, headers=headers)


# Pydantic's own messages quote the input in places ("found `x` at 3"): these say the same without.
_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "has a field that is not known",
    "json_invalid": "is not valid JSON",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is too large",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}
_LIMITS = {
    "greater_than_equal": ("ge", "must be at least {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "too_short": ("min_length", "must have at least {} items"),
    "too_long": ("max_length", "must have at most {} items"),
    "literal_error": ("expected", "must be {}"),
    "enum": ("expected", "must be {}"),
}


def _field_error(entry: Mapping[str, Any]) -> FieldError:
    kind, context = str(entry["type"]), entry.get("ctx") or {}
    path = list(entry["loc"])
    if kind in {"extra_forbidden", "json_invalid"}:
        path = path[:-1]  # the sender's own name for the field; the offset of the error
    name = ".".join(str(part) for part in path[1:]) or (str(path[0]) if path else "body")
    if kind in _LIMITS:
        key, sentence = _LIMITS[kind]
        return FieldError(name, sentence.format(context.get(key)))
    # "text" is what schemas/text.py raises, in its own words.
    return FieldError(name, str(context["sentence"]) if kind == "text" else _MESSAGES.get(kind, "is not valid"))
