"""What a request that fails is answered: `{"error": "…"}`, with the status of the error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

from brain.database.connection import DATABASE_ERRORS, explain, is_lost_link
from brain.errors import BrainError
from brain.problems import Problems
from brain.web.responses import error_response

Handler = Callable[[HTTPConnection, Exception], Awaitable[Response]]

# Of a path, which a client chooses.
LONGEST_SHOWN = 200


async def http_error(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = error_response(error.detail, error.status_code)
    response.headers.update(error.headers or {})
    if error.status_code == 401:
        response.headers.setdefault("www-authenticate", "Bearer")
    return response


async def brain_error(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, BrainError)
    return error_response(str(error), error.http_status)


async def unexpected_error(connection: HTTPConnection, error: Exception) -> Response:
    """Return what tells nothing: the server logs the error with its traceback."""
    return error_response("an internal error", 500)


async def client_disconnected(connection: HTTPConnection, error: Exception) -> Response:
    """Return an empty response: the client left before it had sent its request."""
    return Response(status_code=400)


async def database_error(
    problems: Problems, connection: HTTPConnection, error: Exception
) -> Response:
    if not isinstance(connection, Request):
        # Of a WebSocket: that its client has vanished is an OSError, too, which uvicorn expects.
        raise error
    path = connection.url.path[:LONGEST_SHOWN]
    problems.report("requests", f"{connection.method} {path} failed: {explain(error)}")
    if isinstance(error, TimeoutError) or is_lost_link(error):
        reason = "the database cannot be reached, try again later"
    else:
        reason = "the query failed"
    return error_response(reason, 503)


def exception_handlers(problems: Problems) -> dict[Any, Handler]:
    """Return the handlers of an application; failed queries are reported to `problems`."""
    return {
        BrainError: brain_error,
        **dict.fromkeys(DATABASE_ERRORS, partial(database_error, problems)),
        UnicodeDecodeError: unexpected_error,  # more likely of a request
        HTTPException: http_error,
        ClientDisconnect: client_disconnected,
        Exception: unexpected_error,
    }
