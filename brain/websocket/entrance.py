"""How a client gets in: from where it comes, who it is, and whether there is room."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from brain.auth import Authority, Identity, is_allowed_origin, token_in
from brain.errors import TokenRefused, TooManyConnections
from brain.settings import Settings
from brain.websocket.doorkeeper import Doorkeeper, DoorLimits
from brain.websocket.outlet import EXTENSION, Hearer, Outlet
from brain.websocket.plain import PlainOutlet
from brain.websocket.visitors import Visitors

RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Entrance:
    """What holds for every client that comes in."""

    authority: Authority
    doorkeeper: Doorkeeper
    visitors: Visitors
    most_depth: int
    most_subscriptions: int
    messages_per_second: float
    bytes_per_second: float
    unread_seconds: float
    allowed_origins: Sequence[str] = ()
    leeway_seconds: float = 0.0

    def seconds_left(self, identity: Identity) -> float:
        """Return for how long somebody may stay without another token."""
        return identity.expires_at + self.leeway_seconds - time.time()


def entrance_by(settings: Settings, authority: Authority, visitors: Visitors) -> Entrance:
    """Return the entrance that `settings` describe."""
    limits = DoorLimits(
        in_all=settings.connections,
        per_address=settings.connections_per_address,
        per_user=settings.connections_per_user,
        anonymous=settings.anonymous_connections,
    )
    return Entrance(
        authority,
        Doorkeeper(limits),
        visitors,
        most_depth=settings.message_depth,
        most_subscriptions=settings.subscriptions,
        messages_per_second=settings.messages_per_second,
        bytes_per_second=settings.bytes_per_second,
        unread_seconds=settings.unread_seconds,
        allowed_origins=settings.allowed_origins,
        leeway_seconds=settings.jwt_leeway_seconds,
    )


@dataclass(frozen=True, slots=True)
class Guest:
    """A client that has been let in."""

    outlet: Outlet
    identity: Identity
    leave: Callable[[], None]
    """To be called when it is over; may be called again."""


async def enter(
    websocket: WebSocket,
    entrance: Entrance,
    begin: Callable[[Guest], Hearer],
    identity: Identity,
    subprotocol: str | None = None,
) -> None:
    """
    Let a client in, and hold the conversation that `begin` begins, or see that it is held.

    Over Brain's own protocol class this returns at once: the connection calls the conversation.
    Under any other server it is carried from here, until either side has enough.
    """
    headers = websocket.headers
    if not is_allowed_origin(headers.get("origin"), headers.get("host"), entrance.allowed_origins):
        await refuse(websocket, 403, "pages from there may not connect: see BRAIN_ALLOWED_ORIGINS")
        return
    address = websocket.client.host if websocket.client else ""
    try:
        leave = entrance.doorkeeper.admit(address, identity.user)
    except TooManyConnections as refusal:
        await refuse(websocket, refusal.status_code, str(refusal))
        return
    is_held_elsewhere = False
    try:
        await websocket.accept(subprotocol)
        connection = websocket.scope.get("extensions", {}).get(EXTENSION)
        outlet = connection or PlainOutlet(websocket, entrance.unread_seconds)
        hearer = begin(Guest(outlet, identity, leave))
        if connection is None:
            await outlet.carry(hearer)
        else:
            connection.adopt(hearer)
            is_held_elsewhere = True
    finally:
        if not is_held_elsewhere:
            leave()


async def identified(websocket: WebSocket, authority: Authority) -> Identity:
    """Return who a client is; whoever has no token, or no good one, is a stranger."""
    token = token_in(websocket.headers, websocket.scope["subprotocols"], websocket.query_params)
    if token is None:
        return authority.stranger()
    try:
        return await authority.identify(token)
    except TokenRefused:
        return authority.outsider()


async def refuse(websocket: WebSocket, status_code: int, why: str) -> None:
    """Answer instead of shaking hands."""
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status_code in (429, 503) else {}
    if status_code == 401:
        headers["www-authenticate"] = "Bearer"
    await websocket.send_denial_response(PlainTextResponse(f"{why}\n", status_code, headers))
