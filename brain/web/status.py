"""The status of Brain, for curl and for load balancers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from brain.description.routes import DescribedRoute, Operation
from brain.problems import Problem
from brain.web.host_check import FOREIGN
from brain.web.responses import json_response
from brain.web.services import Services


class WebSocketStatus(BaseModel):
    """What `/ws` is doing."""

    active: bool
    """True while Brain follows the database."""
    connected_clients: int
    """Of all nodes."""
    endpoint: str


class Status(BaseModel):
    """Whether Brain works."""

    success: Literal[True]
    websocket: WebSocketStatus


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"]


class Kind(BaseModel):
    """How many problems there are of one kind."""

    address: str
    """The first word of theirs."""
    count: int
    at: datetime
    """When one happened last."""


class Readiness(BaseModel):
    """Whether this process follows the database, and is not about to stop."""

    status: Literal["ready", "not following the database", "draining"]
    problems: list[Problem] | list[Kind] = Field(default_factory=list)
    """What went wrong in the last ten minutes, if anything; the kinds alone where clients need
    tokens."""


STATUS = Operation(
    id="getStatus",
    summary="Whether the database is followed, and the number of clients",
    responses={200: Status},
    errors=(503,),
)
ALIVE = Operation(id="getLiveness", summary="Whether the process answers", responses={200: Alive})
READY = Operation(
    id="getReadiness",
    summary="Whether new clients can be served, and what went wrong of late",
    responses={200: Readiness, 503: Readiness},
)


def kinds_of(problems: Iterable[Problem]) -> list[Kind]:
    """Return which kinds of problems there are, without channels, keys and texts."""
    kinds: dict[str, Kind] = {}
    for problem in problems:
        address = problem.address.partition(" ")[0]
        kind = kinds.setdefault(address, Kind(address=address, count=0, at=problem.at))
        kind.count += problem.count
        kind.at = max(kind.at, problem.at)
    return list(kinds.values())


def routes(services: Services) -> list[DescribedRoute]:
    """Return the status endpoints."""

    async def websocket_status(request: Request) -> Response:
        elsewhere = await services.cluster.clients_elsewhere()
        websocket = WebSocketStatus(
            active=services.source.statistics().is_live,
            connected_clients=services.presence.counts().clients + elsewhere,
            endpoint=f"{request.scope.get('root_path', '')}/ws",
        )
        return json_response(Status(success=True, websocket=websocket))

    async def alive(request: Request) -> Response:
        return json_response(Alive(status="alive"))

    async def ready(request: Request) -> Response:
        is_live = services.source.statistics().is_live
        found = Readiness(status="ready" if is_live else "not following the database")
        if not services.draining.is_ready:
            found.status = "draining"
        # They concern a part: the rest works, so that they do not make this process unready.
        if problems := services.problems.recent():
            # Addresses and texts name channels, keys and values: they are for those who may read
            # everything, which is everybody where no token is needed and the host is Brain's.
            is_open = services.authority.is_open and not request.scope.get(FOREIGN)
            found.problems = problems if is_open else kinds_of(problems)
        return json_response(found, 200 if found.status == "ready" else 503)

    return [
        DescribedRoute("/api/brain/status/ws", websocket_status, STATUS),
        DescribedRoute("/healthz", alive, ALIVE),
        DescribedRoute("/readyz", ready, READY),
    ]
