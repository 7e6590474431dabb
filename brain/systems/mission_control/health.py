"""
The health of Brain, in the form that Mission Control documents.

Source: the documentation of Mission Control, "Health Check".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from brain.database.url import shown
from brain.description.routes import DescribedRoute, Operation
from brain.message.timestamps import iso_milliseconds
from brain.web.responses import json_response
from brain.web.services import Services


class Clients(BaseModel):
    """How many clients there are, on all nodes."""

    status: Literal["running"]
    connections: int
    connectedUsers: int


class Configuration(BaseModel):
    """Where the changes come from."""

    gatewayUrl: str
    """The URL of the database; only its scheme where clients need tokens."""
    useMockData: Literal[False]


class Health(BaseModel):
    """Whether the database is followed."""

    status: Literal["ok", "degraded"]
    timestamp: str
    gateway: Literal["connected", "disconnected"]
    websocket: Clients
    config: Configuration


HEALTH = Operation(
    id="getMissionControlHealth",
    summary="Whether the database is followed, and the number of clients",
    tag="mission_control",
    responses={200: Health, 503: Health},
)


def routes(services: Services) -> list[DescribedRoute]:
    """
    Return the endpoint.

    The document's gateway, the source of the changes, is the database here.
    """

    # Where clients need tokens, not everybody may know which database it is, and where.
    is_open = services.authority.is_open
    gateway = shown(services.database_url, with_user=False) if is_open else "postgresql:"

    async def health(request: Request) -> Response:
        found = await services.cluster.counts()
        is_well = services.source.statistics().is_live
        answer = Health(
            status="ok" if is_well else "degraded",
            timestamp=iso_milliseconds(datetime.now(UTC)),
            gateway="connected" if is_well else "disconnected",
            websocket=Clients(
                status="running", connections=found.clients, connectedUsers=found.users
            ),
            config=Configuration(gatewayUrl=gateway, useMockData=False),
        )
        return json_response(answer, 200 if is_well else 503)

    return [DescribedRoute("/health", health, HEALTH)]
