"""Who may ask over HTTP, where tokens are asked for; and what is asked, where it is in a body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from brain.auth import Authority, Identity, is_allowed_origin, token_in
from brain.errors import TokenRefused
from brain.web.status import printed

Endpoint = Callable[[Request], Awaitable[Response]]
Asked = TypeVar("Asked", bound=BaseModel)

MOST_BODY_BYTES = 1024 * 1024
# Who is still speaking when the connection is closed does not get the answer.
MOST_DISCARDED_BYTES = 16 * MOST_BODY_BYTES


class Refused(Exception):
    """A request is answered without being carried out."""

    def __init__(self, status_code: int, why: str) -> None:
        super().__init__(why)
        self.status_code = status_code

    @property
    def response(self) -> Response:
        response = printed({"error": str(self)}, self.status_code)
        if self.status_code == 401:
            response.headers["www-authenticate"] = "Bearer"
        return response


def answered(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint that answers where the given one raises `Refused`."""

    async def answering(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused as refused:
            return refused.response

    return answering


def for_hearers(
    authority: Authority, channel_of: Callable[[Request], str], endpoint: Endpoint
) -> Endpoint:
    """Return an endpoint that answers those who may hear the channel that a request is about."""

    async def guarded(request: Request) -> Response:
        identity, channel = await caller(request, authority), channel_of(request)
        require(identity, (await authority.allowed(identity, [channel]))(channel))
        return await endpoint(request)

    return answered(guarded)


async def caller(request: Request, authority: Authority) -> Identity:
    """Return who asks. Raises `Refused` for a token that is not valid."""
    token = token_in(request.headers, (), request.query_params)
    if token is None or authority.is_open:
        return authority.stranger()
    try:
        return await authority.identify(token)
    except TokenRefused:
        raise Refused(401, "the token is not valid") from None


def require(identity: Identity, is_allowed: bool) -> None:
    """Raise `Refused` unless it is allowed."""
    if not is_allowed:
        if identity.user is None:
            raise Refused(401, "a token is needed")
        raise Refused(403, "the token does not allow this")


async def asked(request: Request, model: type[Asked], allowed_origins: tuple[str, ...]) -> Asked:
    """
    Return what the body of a request asks.

    Raises `Refused`, also for a page of another host: a browser would send what it says without
    asking, were it not for the type of the content.
    """
    headers = request.headers
    if not is_allowed_origin(headers.get("origin"), headers.get("host"), allowed_origins):
        raise Refused(403, "pages from there may not ask: see BRAIN_ALLOWED_ORIGINS")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "the content must be application/json")
    body, size = b"", 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MOST_BODY_BYTES:
            body += chunk
        elif size > MOST_DISCARDED_BYTES:
            break
    if size > MOST_BODY_BYTES:
        raise Refused(413, f"more than {MOST_BODY_BYTES} bytes")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise Refused(422, f"{place}: {first['msg']}") from None
