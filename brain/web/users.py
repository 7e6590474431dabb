"""Taking users' tokens away."""

from __future__ import annotations

import logging
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.auth import Authority
from brain.database.connection import DISCONNECTIONS, told
from brain.database.revocations import revoke
from brain.web.access import Refused, answered, asked, caller, require
from brain.web.status import printed

# Whoever may publish on it may take tokens away.
RIGHT = "users:revoke"

logger = logging.getLogger(__name__)


class Revocation(BaseModel):
    """Whose tokens are to be good no more."""

    user: Annotated[str, Field(min_length=1, max_length=255)]
    reason: Annotated[str, Field(max_length=1000)] | None = None


def routes(authority: Authority, allowed_origins: tuple[str, ...]) -> list[Route]:
    """Return the endpoint, which writes through the pool in the request's state."""

    async def revoked(request: Request) -> Response:
        identity = await caller(request, authority)
        wanted = await asked(request, Revocation, allowed_origins)
        require(identity, identity.may_publish(RIGHT))
        try:
            await revoke(request.state.pool, wanted.user, wanted.reason)
        except DISCONNECTIONS as error:
            logger.warning("cannot revoke the tokens of a user: %s", told(error))
            raise Refused(503, "the database cannot be reached, try again later") from error
        return printed({"status": "revoked", "user": wanted.user})

    return [Route("/api/brain/users/revoke", answered(revoked), methods=["POST"])]
