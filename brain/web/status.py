"""The status of Brain, for curl and for load balancers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.problems import Problem
from brain.web.host_check import FOREIGN
from brain.web.responses import json_response
from brain.web.services import Services


class Kind(TypedDict):
    """How many problems there are of one kind."""

    address: str
    """The first word of theirs."""
    count: int
    at: datetime
    """When one happened last."""


def kinds_of(problems: Iterable[Problem]) -> list[Kind]:
    """Return which kinds of problems there are, without channels, keys and texts."""
    kinds: dict[str, Kind] = {}
    for problem in problems:
        address = problem.address.partition(" ")[0]
        kind = kinds.setdefault(address, {"address": address, "count": 0, "at": problem.at})
        kind["count"] += problem.count
        kind["at"] = max(kind["at"], problem.at)
    return list(kinds.values())


def routes(services: Services) -> list[Route]:
    """Return the status endpoints."""

    async def websocket_status(request: Request) -> Response:
        elsewhere = await services.cluster.clients_elsewhere()
        return json_response(
            {
                "success": True,
                "websocket": {
                    "active": services.source.statistics().is_live,
                    "connected_clients": services.presence.counts().clients + elsewhere,
                    "endpoint": "/ws",
                },
            }
        )

    async def alive(request: Request) -> Response:
        return json_response({"status": "alive"})

    async def ready(request: Request) -> Response:
        is_live = services.source.statistics().is_live
        status: dict[str, object] = {"status": "ready" if is_live else "not following the database"}
        # They concern a part: the rest works, so that they do not make this process unready.
        if problems := services.problems.recent():
            # Addresses and texts name channels, keys and values: they are for those who may read
            # everything, which is everybody where no token is needed and the host is Brain's.
            is_open = services.authority.is_open and not request.scope.get(FOREIGN)
            status["problems"] = problems if is_open else kinds_of(problems)
        return json_response(status, 200 if is_live else 503)

    return [
        Route("/api/brain/status/ws", websocket_status),
        Route("/healthz", alive),
        Route("/readyz", ready),
    ]
