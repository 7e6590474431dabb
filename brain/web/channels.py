"""
Telling channels something over HTTP, and who hears them.

Source: the HTTP API of the BRAiN WebSocket system, which docs/channels.md prints.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import brain
from brain.auth import Authority
from brain.database.connection import DISCONNECTIONS, told
from brain.database.messages import announce, publish
from brain.database.nodes import Everywhere
from brain.errors import MessageRefused
from brain.message.channels import EVERYONE, PULSE_SECONDS, SILENCE_SECONDS, STANDARD_CHANNELS
from brain.web.access import Refused, answered, asked, caller, require
from brain.web.status import printed

Name = Annotated[str, Field(min_length=1, max_length=255)]

logger = logging.getLogger(__name__)


class Broadcast(BaseModel):
    """What is to be told on a channel."""

    channel: Name
    message: Any
    type: Name = "message"


class BroadcastToAll(BaseModel):
    """What every client of the channels is to be told, whatever it has subscribed to."""

    type: Name
    data: Any = None


@dataclass(frozen=True)
class ChannelsApi:
    """The endpoints; they publish through the pool in the request's state."""

    authority: Authority
    allowed_origins: tuple[str, ...]
    everywhere: Callable[[], Awaitable[Everywhere]]
    """Says promptly who is connected, to any process."""
    subscribers: Callable[[str], Awaitable[tuple[int, list[UUID]]]]
    """Says the same of a channel."""

    def routes(self) -> list[Route]:
        return [
            Route("/api/ws/broadcast", answered(self._broadcast), methods=["POST"]),
            Route("/api/ws/broadcast/all", answered(self._broadcast_to_all), methods=["POST"]),
            Route("/api/ws/stats", answered(self._statistics)),
            Route("/api/ws/channels/{channel}", answered(self._channel)),
            Route("/api/ws/info", self._info),
        ]

    async def _broadcast(self, request: Request) -> Response:
        identity = await caller(request, self.authority)
        message = await asked(request, Broadcast, self.allowed_origins)
        require(identity, identity.may_publish(message.channel))
        with refusals():
            await publish(request.state.pool, message.channel, message.type, message.message)
        count, _ = await self.subscribers(message.channel)
        return printed({"status": "broadcasted", "channel": message.channel, "subscribers": count})

    async def _broadcast_to_all(self, request: Request) -> Response:
        identity = await caller(request, self.authority)
        message = await asked(request, BroadcastToAll, self.allowed_origins)
        # There is no narrower right to tell everybody something.
        require(identity, "*" in identity.publishes)
        with refusals():
            await announce(request.state.pool, message.type, message.data)
        count, _ = await self.subscribers(EVERYONE)
        return printed({"status": "broadcasted", "connections": count})

    async def _statistics(self, request: Request) -> Response:
        identity = await caller(request, self.authority)
        require(identity, identity.is_unlimited or identity.user is not None)
        found = await self.everywhere()
        channels = {name: n for name, n in found.channels.items() if name != EVERYONE}
        return printed(
            {
                "total_connections": found.clients,
                "total_users": found.users,
                "total_channels": len(channels),
                "channels": channels,
            }
        )

    async def _channel(self, request: Request) -> Response:
        identity = await caller(request, self.authority)
        channel: str = request.path_params["channel"]
        require(identity, (await self.authority.allowed(identity, [channel]))(channel))
        count, connections = await self.subscribers(channel)
        return printed(
            {
                "channel": channel,
                "subscribers": count,
                "connection_ids": list(map(str, connections)),
            }
        )

    async def _info(self, request: Request) -> Response:
        return printed(
            {
                "service": "brain",
                "version": brain.__version__,
                "endpoints": {
                    "connect": "/ws/connect",
                    "channel": "/ws/channel/{name}",
                    "broadcast": "/api/ws/broadcast",
                    "broadcast_all": "/api/ws/broadcast/all",
                    "stats": "/api/ws/stats",
                    "channels": "/api/ws/channels/{channel}",
                    "test_page": "/static/websocket_test.html",
                },
                "channels": list(STANDARD_CHANNELS),
                "ping_seconds": PULSE_SECONDS,
                "timeout_seconds": SILENCE_SECONDS,
            }
        )


@contextmanager
def refusals() -> Iterator[None]:
    """Raise `Refused` where something cannot be published."""
    try:
        yield
    except MessageRefused as error:
        raise Refused(413 if "at most" in str(error) else 422, str(error)) from error
    except DISCONNECTIONS as error:
        logger.warning("cannot publish: %s", told(error))
        raise Refused(503, "the database cannot be reached, try again later") from error
