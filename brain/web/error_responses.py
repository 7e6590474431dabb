"""What a request that fails is answered: `{"error": "…"}`, with the status of the error."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

from brain.database.connection import DATABASE_ERRORS, explain, is_lost_link
from brain.errors import BrainError
from brain.problems import printable
from brain.web.responses import json_response

Handler = Callable[[HTTPConnection, Exception], Awaitable[Response]]

logger = logging.getLogger(__name__)


async def http_error(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = json_response({"error": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    if error.status_code == 401:
        response.headers.setdefault("www-authenticate", "Bearer")
    return response


async def brain_error(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, BrainError)
    return json_response({"error": str(error)}, error.http_status)


async def unexpected_error(connection: HTTPConnection, error: Exception) -> Response:
    """Return what tells nothing: the server logs the error with its traceback."""
    return json_response({"error": "an internal error"}, 500)


async def client_disconnected(connection: HTTPConnection, error: Exception) -> Response:
    """Return an empty response: the client left before it had sent its request."""
    return Response(status_code=400)


async def database_error(connection: HTTPConnection, error: Exception) -> Response:
    if isinstance(error, TimeoutError) or is_lost_link(error):
        return unavailable(connection, error, "the database cannot be reached, try again later")
    return unavailable(connection, error, "the query failed")


def unavailable(connection: HTTPConnection, error: Exception, reason: str) -> Response:
    if not isinstance(connection, Request):
        # Of a WebSocket: that its client has vanished is an OSError, too, which uvicorn expects.
        raise error
    method, path = connection.method, connection.url.path
    logger.warning("%s %s failed: %s", printable(method), printable(path), explain(error))
    return json_response({"error": reason}, 503)


EXCEPTION_HANDLERS: Mapping[type[Exception], Handler] = {
    BrainError: brain_error,
    **dict.fromkeys(DATABASE_ERRORS, database_error),
    UnicodeDecodeError: unexpected_error,  # more likely of a request
    HTTPException: http_error,
    ClientDisconnect: client_disconnected,
    Exception: unexpected_error,
}
