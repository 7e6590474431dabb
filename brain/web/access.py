"""Who may ask over HTTP, where tokens are asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from brain.auth import Authority, token_in
from brain.errors import TokenRefused
from brain.web.status import printed

Endpoint = Callable[[Request], Awaitable[Response]]


def for_hearers(
    authority: Authority, channel_of: Callable[[Request], str], endpoint: Endpoint
) -> Endpoint:
    """Return an endpoint that answers those who may hear the channel that a request is about."""

    async def guarded(request: Request) -> Response:
        token = token_in(request.headers, (), request.query_params)
        identity = authority.stranger()
        if token is not None and not authority.is_open:
            try:
                identity = await authority.identify(token)
            except TokenRefused:
                return unknown("the token is not valid")
        if identity.may_hear(channel_of(request)):
            return await endpoint(request)
        if identity.user is None:
            return unknown("a token is needed")
        return printed({"error": "the token does not allow this"}, 403)

    return guarded


def unknown(why: str) -> Response:
    response = printed({"error": why}, 401)
    response.headers["www-authenticate"] = "Bearer"
    return response
