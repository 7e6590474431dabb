"""Revoking the tokens of a user."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from brain.auth.revocations import revoke
from brain.description.routes import DescribedRoute, Operation, Right
from brain.web.requests import authenticate, authorize, parse_body
from brain.web.responses import json_response
from brain.web.services import Services

# PostgreSQL has no text with a NUL.
WITHOUT_NUL = r"^[^\x00]*$"

# A token that may publish on this channel may revoke.
RIGHT = "users:revoke"


class Revocation(BaseModel):
    """The user, and why."""

    user: Annotated[str, Field(min_length=1, max_length=255, pattern=WITHOUT_NUL)]
    reason: Annotated[str, Field(max_length=1000, pattern=WITHOUT_NUL)] | None = None


class Revoked(BaseModel):
    """The tokens of the user that were issued so far are no longer valid."""

    status: Literal["revoked"]
    user: str


REVOKE = Operation(
    id="revokeTokens",
    summary="Revoke the tokens of a user, and close the connections",
    description="It needs a token that may publish on `users:revoke`.",
    method="POST",
    right=Right.TOKEN,
    body=Revocation,
    responses={200: Revoked},
    errors=(401, 403, 413, 415, 422, 503),
)


def routes(services: Services) -> list[DescribedRoute]:
    """Return the endpoint, which writes through the pool in the request's state."""

    async def revoke_tokens(request: Request) -> Response:
        identity = await authenticate(request, services.authority)
        authorize(identity, identity.may_publish(RIGHT))
        body = await parse_body(request, Revocation, identity, services.authority)
        await revoke(request.state.pool, body.user, body.reason)
        return json_response(Revoked(status="revoked", user=body.user))

    return [DescribedRoute("/api/brain/users/revoke", revoke_tokens, REVOKE)]
