"""Errors as clients get them: JSON in OpenAI's form, with a status, and never a trace.

raise ApiError(400, "the request has no image", param="messages")
"""

from __future__ import annotations

import logging
import math

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from paligemma_lib.serving.answers import Answer, Busy, Unavailable

_log = logging.getLogger(__name__)

_TYPES = {
    401: "authentication_error",
    408: "timeout",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class ApiError(Exception):
    """An error that a client is told."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ):
        """Takes the HTTP status, and fields of OpenAI's error object.

        Args:
          status: HTTP status.
          message: what is wrong, and what helps.
          param: field of the request that is to blame.
          code: a short name for programs.
          retry_after: seconds after which another try may succeed.
        """
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code, self.retry_after = param, code, retry_after

    def body(self) -> dict[str, object]:
        """Returns the error as OpenAI's API has it."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        told = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": told}

    def response(self) -> Response:
        """Returns the error as a response."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status in (408, 413):  # the rest of the body is not read
            headers["Connection"] = "close"
        return JSONResponse(self.body(), self.status, headers)


def refusal(error: Busy | Unavailable | ValueError) -> ApiError:
    """Returns why the engine takes no job, as clients are told."""
    if isinstance(error, Busy):
        return ApiError(
            429, f"{error}: try again later", code="busy", retry_after=error.retry_after
        )
    if isinstance(error, Unavailable):
        return ApiError(503, str(error), code="unavailable", retry_after=5)
    return ApiError(400, str(error))


def failure(answer: Answer) -> ApiError:
    """Returns why there is no caption, as clients are told."""
    problem = answer.problem or ""
    if answer.fault == "request":
        return ApiError(400, problem, code="invalid_image_or_prompt")
    if answer.fault in ("server", "model"):
        return ApiError(500, problem, code="failed")
    return ApiError(503, problem, code=answer.fault, retry_after=5)


async def left(_: Request, error: Exception) -> Response:
    """Answers a client that has left: nobody reads it, as with nginx's status 499."""
    return Response(status_code=499)


async def told(_: Request, error: Exception) -> Response:
    """Answers with an error, for starlette's `exception_handlers`."""
    if isinstance(error, ApiError):
        return error.response()
    if isinstance(error, HTTPException):  # of starlette: an unknown path or method
        response = ApiError(error.status_code, f"{error.detail}: see /docs").response()
        response.headers.update(error.headers or {})
        return response
    _log.error("A request has failed", exc_info=error)
    return ApiError(500, "The server failed; its log says why.", code="failed").response()
