"""Authenticates and authorises HTTP requests, and parses their bodies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from brain.auth.identity import Identity
from brain.auth.policy import Authority
from brain.auth.token_verifier import token_in
from brain.errors import TokenRefused
from brain.message.json_text import split_object, text_of

Endpoint = Callable[[Request], Awaitable[Response]]
Body = TypeVar("Body", bound=BaseModel)


def readable_by(authority: Authority, parameter: str, endpoint: Endpoint) -> Endpoint:
    """
    Return an endpoint for clients that may read the channel named by a path parameter.

    Who sends the request, and what it may read, are in its state: `identity` and `access`.
    """

    async def guarded(request: Request) -> Response:
        await require_readable(request, authority, request.path_params[parameter])
        return await endpoint(request)

    return guarded


async def require_readable(request: Request, authority: Authority, channel: str) -> None:
    """
    Raise `HTTPException` unless the client may read a channel, which PostgreSQL can name.

    Who sends the request, and what it may read, are in its state then: `identity` and `access`.
    """
    if "\0" in channel:
        raise HTTPException(404, "no channel has such a name")
    identity = await authenticate(request, authority)
    request.state.identity = identity
    request.state.access = await authority.read_access(identity, [channel])
    require_unrevoked(identity, authority)
    authorize(identity, request.state.access(channel))


async def authenticate(request: Request, authority: Authority) -> Identity:
    """Return who sends a request. Raises `HTTPException` for an invalid token."""
    token = token_in(request.headers, (), request.query_params)
    return await identify(token, authority, request)


async def identify(token: str | None, authority: Authority, request: Request) -> Identity:
    """
    Return who sends a request with a token, or without one.

    Raises `HTTPException` for an invalid one.
    """
    try:
        return await authority.identify_client(token, request)
    except TokenRefused:
        raise token_not_valid(authority) from None


def require_unrevoked(identity: Identity, authority: Authority) -> None:
    """Raise `HTTPException` if the token has been revoked while something was awaited."""
    if authority.is_revoked(identity):
        raise token_not_valid(authority)


def token_not_valid(authority: Authority) -> HTTPException:
    """Return the response to an invalid token; the header is that of RFC 6750, section 3."""
    if authority.has_authenticator:
        where = "the application in which Brain is mounted does not know it, or it was revoked"
    else:
        where = "see BRAIN_JWT_SECRET, BRAIN_JWT_KEY_FILE or BRAIN_JWKS_URL, and the log of Brain"
    header = f'Bearer error="invalid_token", error_description="{where}"'
    return HTTPException(401, "the token is not valid", {"WWW-Authenticate": header})


def authorize(identity: Identity, is_allowed: bool) -> None:
    """Raise `HTTPException` unless it is allowed."""
    if not is_allowed:
        if identity.user is None:
            raise HTTPException(401, "a token is needed, except for BRAIN_PUBLIC_CHANNELS")
        raise HTTPException(403, "the token does not allow this")


def wants_number_strings(query: QueryParams) -> bool:
    """Return whether long numbers are to be strings. Raises `ValueError`, with what is wrong."""
    numbers = query.get("numbers")
    if numbers not in (None, "string"):
        raise ValueError("numbers can only be string")
    return numbers is not None


async def exact_members(request: Request) -> dict[str, str]:
    """Return the texts of the members of a JSON body that `parse_body` has accepted."""
    members = split_object((await request.body()).decode())
    return {name: text_of(text) for name, text in members.items()}


async def parse_body(
    request: Request, model: type[Body], identity: Identity, authority: Authority
) -> Body:
    """
    Return the JSON body of a request as `model`; it may come late.

    Raises `HTTPException`. Requiring application/json makes a browser send a CORS preflight, which
    is refused unless the page's origin is allowed.
    """
    if (
        request.headers.get("content-type", "").partition(";")[0].strip().lower()
        != "application/json"
    ):
        raise HTTPException(415, "the content type must be application/json")
    try:
        body = await request.body()
        require_unrevoked(identity, authority)
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise HTTPException(422, f"{place}: {first['msg']}") from None
