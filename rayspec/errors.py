"""Every error that rayspec raises on purpose, and how a client sees it.

RayspecError
├── ConfigError            a setting is wrong: one line with field, value and remedy
├── ModelError             a model cannot be found, fetched or verified
├── EngineLost             a replica whose engine is dead: another has to answer
├── LinkError              the connection between a target and its draft
│   ├── LinkRefused        the two ends do not fit together
│   └── LinkClosed         the link is gone or was closed
└── RequestError           a request that is answered with an OpenAI error body
    ├── BadRequest         400
    ├── Unauthorized       401
    ├── NotFound           404
    ├── SlowRequest        408
    ├── PayloadTooLarge    413
    ├── Overloaded         429
    │   └── RateLimited    429
    └── Unavailable        503
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BadRequest",
    "ConfigError",
    "EngineLost",
    "LinkClosed",
    "LinkError",
    "LinkRefused",
    "ModelError",
    "NotFound",
    "Overloaded",
    "PayloadTooLarge",
    "RateLimited",
    "RayspecError",
    "RequestError",
    "SlowRequest",
    "Unauthorized",
    "Unavailable",
    "to_openai",
]


class RayspecError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(RayspecError):
    """A setting is wrong; prints as one line naming the field, its value and the remedy."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        # All three go to Exception.args, so that the error survives pickling between processes.
        super().__init__(field, value, remedy)
        self.field = field
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.field} = {_shorten(self.value)}: {_one_line(self.remedy)}"


class ModelError(RayspecError):
    """A model cannot be found, fetched, converted or verified."""


class EngineLost(RayspecError):
    """The engine of a replica is dead; never seen by a client while another lane lives."""


class LinkError(RayspecError):
    """Something is wrong between a target and its draft; never an error for a request."""


class LinkRefused(LinkError):
    """The two ends do not fit together; `reason` names the first difference."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LinkClosed(LinkError):
    """The link is gone, or was closed on purpose."""


class RequestError(RayspecError):
    """A request is refused with `status` and an OpenAI error body."""

    status: int = 500
    type: str = "InternalServerError"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        status: int | None = None,
        type: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        if status is not None:
            self.status = status
        if type is not None:
            self.type = type

    @property
    def message(self) -> str:
        """What the client is told."""
        return str(self)

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that go with the error."""
        return {}


class BadRequest(RequestError):
    """The request is malformed or asks for something that cannot be."""

    status = 400
    type = "BadRequestError"


class Unauthorized(RequestError):
    """The request has no API key, or one that is unknown."""

    status = 401
    type = "AuthenticationError"

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_api_key")

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that go with the error."""
        return {"WWW-Authenticate": "Bearer"}


class NotFound(RequestError):
    """The model or route does not exist."""

    status = 404
    type = "NotFoundError"


class SlowRequest(RequestError):
    """The request did not come in within the configured time."""

    status = 408
    type = "TimeoutError"


class PayloadTooLarge(RequestError):
    """The body exceeds the configured limit."""

    status = 413
    type = "PayloadTooLargeError"


class Overloaded(RequestError):
    """Every lane that could serve the request is full; try again after `retry_after_s`."""

    status = 429
    type = "RateLimitError"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: int = 1,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, code=code, param=param)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that go with the error."""
        return {"Retry-After": str(self.retry_after_s)}


class RateLimited(Overloaded):
    """A client has used what its API key may."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message, retry_after_s=retry_after_s, code="rate_limit_exceeded")


class Unavailable(RequestError):
    """Nothing can serve the request at the moment."""

    status = 503
    type = "ServiceUnavailableError"


_INTERNAL_MESSAGE = "Internal server error."


def to_openai(exc: BaseException) -> dict[str, Any]:
    """Return the OpenAI error body of `exc`, in the shape of vLLM's own `ErrorResponse`.

    As there, `code` is the HTTP status unless the error has a code of its own. The message of an
    unexpected exception stays inside.
    """
    error = exc if isinstance(exc, RequestError) else RequestError(_INTERNAL_MESSAGE)
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code if error.code is not None else error.status,
        }
    }


_MAX_VALUE_CHARS = 80


def _shorten(value: object) -> str:
    """Cut a long value in its middle: of a path, the end says most."""
    text = _one_line(repr(value))
    if len(text) <= _MAX_VALUE_CHARS:
        return text
    head = _MAX_VALUE_CHARS // 3
    return text[:head] + "…" + text[head + 1 - _MAX_VALUE_CHARS :]


def _one_line(text: str) -> str:
    return " ".join(text.split())
