"""Tickets for streams of events: `POST /api/brain/ticket`."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.auth.token_verifier import token_in
from brain.message.timestamps import iso_milliseconds
from brain.web.requests import identify, require_unrevoked
from brain.web.responses import json_response
from brain.web.services import Services


def routes(services: Services) -> list[Route]:
    """Return the endpoint."""

    async def ticket(request: Request) -> Response:
        token = token_in(request.headers, (), request.query_params)
        if token is None:
            raise HTTPException(401, "a ticket is for a token: send Authorization: Bearer")
        identity = await identify(token, services.authority)
        issued = await services.tickets.issue(token)
        require_unrevoked(identity, services.authority)
        expires_at = shown(identity.expires_at)
        return json_response({"ticket": issued, "expires_at": expires_at})

    return [Route("/api/brain/ticket", ticket, methods=["POST"])]


def shown(expires_at: float) -> str | None:
    """Return when a token expires; None: not in the years that are written with four digits."""
    try:
        return iso_milliseconds(datetime.fromtimestamp(expires_at, UTC))
    except (ValueError, OverflowError, OSError):
        return None
