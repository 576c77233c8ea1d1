"""Answers to requests that no lane has seen.

`x-request-id` is Serve's: it passes on the client's id or makes one up, and adds it to answers.
"""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from rayspec.errors import RequestError, to_openai

__all__ = ["NO_CLASS", "install", "respond"]

logger = logging.getLogger(__name__)

NO_CLASS = "none"
_TYPES = {404: "NotFoundError", 405: "MethodNotAllowedError"}


def install(api: FastAPI) -> None:
    """Make `api` answer every failure with an OpenAI error body and our headers."""
    api.add_exception_handler(RequestError, _on_error)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(Exception, _on_error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(getattr(error, "detail", error))
    kind = _TYPES.get(status, "BadRequestError")
    return await _on_error(request, RequestError(detail, status=status, type=kind))


async def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestError):
        name = request.headers.get("x-request-id", "without an id")
        logger.error("request %s failed", name, exc_info=error)
    return respond(error)


def respond(error: Exception) -> Response:
    """Return the answer that says `error`; what is not a `RequestError` is a plain 500."""
    status, headers = 500, dict[str, str]()
    if isinstance(error, RequestError):
        status, headers = error.status, error.headers
    ours = {
        "x-rayspec-lane": NO_CLASS,
        "x-rayspec-class": NO_CLASS,
        "x-rayspec-reason": f"refused {status}",
    }
    return JSONResponse(to_openai(error), status, headers={**headers, **ours})
