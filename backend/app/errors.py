"""What can go wrong, one class per cause. The docstring is the sentence the caller reads.

HTTP status codes are not here: `api/error_handlers.py` maps `code` to them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of a request that was refused: where it is, and what is wrong with it."""

    field: str
    message: str


class GaplessError(Exception):
    """Something went wrong."""

    code = "internal_error"

    def __init__(self, detail: str | None = None) -> None:
        """Take `detail` in place of the class's own sentence; it must never echo input."""
        self.detail = detail or (type(self).__doc__ or "").strip()
        super().__init__(self.detail)


class InvalidRequestError(GaplessError):
    """The request is not valid."""

    code = "invalid_request"

    def __init__(self, *fields: FieldError, detail: str | None = None) -> None:
        """Name every field that is wrong."""
        self.fields = fields
        super().__init__(detail or "; ".join(f"{f.field}: {f.message}" for f in fields))


class UnauthorizedError(GaplessError):
    """A valid credential of this user is required."""

    code = "unauthorized"


class ForbiddenError(GaplessError):
    """You may see this, but not change it."""

    code = "forbidden"


class NotFoundError(GaplessError):
    """There is nothing here, or it is not yours to see."""

    code = "not_found"


class IdempotencyConflictError(GaplessError):
    """This key was used before for a different request."""

    code = "idempotency_conflict"


class PayloadTooLargeError(GaplessError):
    """The body is larger than 256 KB."""

    code = "payload_too_large"


class UnsupportedMediaTypeError(GaplessError):
    """The body must be application/json, not encoded further."""

    code = "unsupported_media_type"


class UnavailableError(GaplessError):
    """The server cannot do this right now. Try again with the same key."""

    code = "unavailable"
    retry_after_seconds = 1
