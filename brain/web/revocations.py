"""Revoking the tokens of a user."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.auth.revocations import revoke
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


def routes(services: Services) -> list[Route]:
    """Return the endpoint, which writes through the pool in the request's state."""

    async def revoke_tokens(request: Request) -> Response:
        identity = await authenticate(request, services.authority)
        authorize(identity, identity.may_publish(RIGHT))
        body = await parse_body(request, Revocation, identity, services.authority)
        await revoke(request.state.pool, body.user, body.reason)
        return json_response({"status": "revoked", "user": body.user})

    return [Route("/api/brain/users/revoke", revoke_tokens, methods=["POST"])]
