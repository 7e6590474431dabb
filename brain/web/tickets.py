"""Tickets for streams of events: `POST /api/brain/ticket`."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from brain.auth.token_verifier import token_in
from brain.description.routes import DescribedRoute, Operation, Right
from brain.web.requests import identify, require_unrevoked
from brain.web.responses import json_response
from brain.web.services import Services


class Ticket(BaseModel):
    """A ticket, which is encrypted."""

    ticket: str
    """Opens `/sse?ticket=…`, and nothing else."""
    expires_at: AwareDatetime | None
    """When the token expires; null if it does not."""


ISSUE = Operation(
    id="issueTicket",
    summary="Get a ticket, with which a browser opens streams of events",
    description="It is valid as long as the token of this request.",
    method="POST",
    right=Right.TOKEN,
    responses={200: Ticket},
    errors=(401, 503),
)


def routes(services: Services) -> list[DescribedRoute]:
    """Return the endpoint."""

    async def ticket(request: Request) -> Response:
        token = token_in(request.headers, (), request.query_params)
        if token is None:
            raise HTTPException(401, "a ticket is for a token: send Authorization: Bearer")
        identity = await identify(token, services.authority, request)
        issued = await services.tickets.issue(token)
        require_unrevoked(identity, services.authority)
        return json_response(Ticket(ticket=issued, expires_at=moment(identity.expires_at)))

    return [DescribedRoute("/api/brain/ticket", ticket, ISSUE)]


def moment(expires_at: float) -> datetime | None:
    """Return when a token expires; None: not in the years that are written with four digits."""
    try:
        return datetime.fromtimestamp(expires_at, UTC)
    except (ValueError, OverflowError, OSError):
        return None
