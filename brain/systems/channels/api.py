"""
Publishing on channels over HTTP, and who is subscribed to them.

Source: the HTTP API of the BRAiN WebSocket System, which docs/channels.md prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

import brain
from brain.database.publish import publish
from brain.description.routes import DescribedRoute
from brain.message.json_text import split_object, text_of
from brain.systems.channels.api_models import (
    BROADCAST,
    BROADCAST_TO_ALL,
    INFO,
    STATISTICS,
    SUBSCRIBERS,
    Broadcast,
    Broadcasted,
    BroadcastedToAll,
    BroadcastToAll,
    Info,
    Statistics,
    Subscribers,
)
from brain.systems.channels.broadcast import broadcast
from brain.systems.channels.wire_format import (
    CLIENT_TIMEOUT_SECONDS,
    EVERYONE,
    HEARTBEAT_SECONDS,
    STANDARD_CHANNELS,
)
from brain.web.requests import authenticate, authorize, exact_members, parse_body, require_readable
from brain.web.responses import json_response
from brain.web.services import Services


def all_data(members: Mapping[str, str]) -> Any:
    """Return what clients get as `data`, from the texts of the body's members."""
    beside = {name: text for name, text in members.items() if name not in ("type", "data")}
    data = members.get("data")
    if not beside:
        return None if data is None else orjson.Fragment(data)
    if data is not None:
        beside |= split_data(data)
    return {name: orjson.Fragment(text) for name, text in beside.items()}


def split_data(data: str) -> dict[str, str]:
    """Return the members of an object, and anything else as one member `data`."""
    if not data.lstrip().startswith("{"):
        return {"data": data}
    return {name: text_of(text) for name, text in split_object(data).items()}


@dataclass(frozen=True)
class ChannelsApi:
    """The endpoints; they publish through the pool in the request's state."""

    services: Services

    def routes(self) -> list[DescribedRoute]:
        return [
            DescribedRoute("/api/ws/broadcast", self._broadcast, BROADCAST),
            DescribedRoute("/api/ws/broadcast/all", self._broadcast_to_all, BROADCAST_TO_ALL),
            DescribedRoute("/api/ws/stats", self._statistics, STATISTICS),
            DescribedRoute("/api/ws/channels/{channel}", self._channel, SUBSCRIBERS),
            DescribedRoute("/api/ws/info", self._info, INFO),
        ]

    async def _broadcast(self, request: Request) -> Response:
        services = self.services
        identity = await authenticate(request, services.authority)
        # Without any right, nothing is read of what it sends.
        authorize(identity, bool(identity.publishable))
        body = await parse_body(request, Broadcast, identity, services.authority)
        authorize(identity, identity.may_publish(body.channel))
        message = orjson.Fragment((await exact_members(request))["message"])
        await publish(request.state.pool, body.channel, body.type, message)
        count, _ = await services.cluster.subscribers(body.channel)
        return json_response(
            Broadcasted(status="broadcasted", channel=body.channel, subscribers=count)
        )

    async def _broadcast_to_all(self, request: Request) -> Response:
        services = self.services
        identity = await authenticate(request, services.authority)
        # No narrower right covers all clients.
        authorize(identity, "*" in identity.publishable)
        body = await parse_body(request, BroadcastToAll, identity, services.authority)
        await broadcast(request.state.pool, body.type, all_data(await exact_members(request)))
        count, _ = await services.cluster.subscribers(EVERYONE)
        return json_response(BroadcastedToAll(status="broadcasted", connections=count))

    async def _statistics(self, request: Request) -> Response:
        identity = await authenticate(request, self.services.authority)
        authorize(identity, identity.is_unlimited or identity.user is not None)
        found = await self.services.cluster.counts()
        access = await self.services.authority.read_access(identity, found.channels)
        # Which names there are is known to those who may read them.
        channels = {name: n for name, n in found.channels.items() if access(name)}
        return json_response(
            Statistics(
                total_connections=found.clients,
                total_users=found.users,
                total_channels=len(channels),
                channels=channels,
            )
        )

    async def _channel(self, request: Request) -> Response:
        channel: str = request.path_params["channel"]
        await require_readable(request, self.services.authority, channel)
        count, connections = await self.services.cluster.subscribers(channel)
        return json_response(
            Subscribers(
                channel=channel, subscribers=count, connection_ids=list(map(str, connections))
            )
        )

    async def _info(self, request: Request) -> Response:
        return json_response(
            Info(
                service="brain",
                version=brain.__version__,
                endpoints={
                    "connect": "/ws/connect",
                    "channel": "/ws/channel/{name}",
                    "broadcast": "/api/ws/broadcast",
                    "broadcast_all": "/api/ws/broadcast/all",
                    "stats": "/api/ws/stats",
                    "channels": "/api/ws/channels/{channel}",
                    "test_page": "/static/websocket_test.html",
                },
                channels=list(STANDARD_CHANNELS),
                ping_seconds=HEARTBEAT_SECONDS,
                timeout_seconds=CLIENT_TIMEOUT_SECONDS,
            )
        )
