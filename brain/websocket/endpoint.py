"""Which address speaks which wire format, and how a client gets in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from brain.auth import Authority, Identity, is_allowed_origin, token_in
from brain.errors import TokenRefused, TooManyConnections
from brain.message.resumable import RunsWithCursorFormat
from brain.message.runs import CHANNEL, RunsFormat
from brain.websocket.conversation import Conversation, Wish
from brain.websocket.doorkeeper import Doorkeeper
from brain.websocket.outlet import EXTENSION, Hearer, Outlet
from brain.websocket.plain import PlainOutlet

# Asks for cursors where the URL cannot.
CURSOR_SUBPROTOCOL = "brain.cursor"

RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Entrance:
    """What holds for every client that comes in."""

    authority: Authority
    doorkeeper: Doorkeeper
    most_depth: int
    unread_seconds: float
    allowed_origins: Sequence[str] = ()
    leeway_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Visit:
    """A client that has been let in."""

    outlet: Outlet
    identity: Identity
    leave: Callable[[], None]
    """To be called when it is over; may be called again."""


def routes(entrance: Entrance) -> list[WebSocketRoute]:
    """Return the WebSocket endpoints; what they tell of lies in `state.sources`."""
    runs = RunsFormat()
    runs_with_cursor = RunsWithCursorFormat(runs)

    async def ws(websocket: WebSocket) -> None:
        asked = websocket.query_params
        subprotocol = next(
            (s for s in websocket.scope["subprotocols"] if s == CURSOR_SUBPROTOCOL), None
        )
        wants_cursors = "cursor" in asked or "snapshot" in asked or subprotocol is not None
        wish = Wish(
            runs_with_cursor if wants_cursors else runs,
            frozenset(asked.getlist("channel") or [CHANNEL]),
            after=asked.get("cursor"),
            wants_snapshot="snapshot" in asked,
            wants_latest=asked.get("latest", "0") != "0",
        )
        await converse(websocket, entrance, wish, subprotocol)

    return [WebSocketRoute("/ws", ws)]


async def converse(
    websocket: WebSocket, entrance: Entrance, wish: Wish, subprotocol: str | None = None
) -> None:
    """Let a client in that is told what happens on channels."""

    def begin(visit: Visit) -> Conversation:
        channels = frozenset(filter(visit.identity.may_hear, wish.channels))
        conversation = Conversation(
            visit.outlet,
            websocket.state.sources,
            replace(wish, channels=channels),
            most_depth=entrance.most_depth,
            seconds_left=visit.identity.expires_at + entrance.leeway_seconds - time.time(),
            when_over=visit.leave,
        )
        conversation.begin()
        return conversation

    await enter(websocket, entrance, begin, subprotocol)


async def enter(
    websocket: WebSocket,
    entrance: Entrance,
    begin: Callable[[Visit], Hearer],
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
    identity = await identified(websocket, entrance.authority)
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
        hearer = begin(Visit(outlet, identity, leave))
        if connection is None:
            await outlet.carry(hearer)
        else:
            connection.adopt(hearer)
            is_held_elsewhere = True
    finally:
        if not is_held_elsewhere:
            leave()


async def identified(websocket: WebSocket, authority: Authority) -> Identity:
    """Return who a client is; whoever has no good token is a stranger."""
    token = token_in(websocket.headers, websocket.scope["subprotocols"], websocket.query_params)
    if token is None:
        return authority.stranger()
    try:
        return await authority.identify(token)
    except TokenRefused:
        return authority.stranger()


async def refuse(websocket: WebSocket, status_code: int, why: str) -> None:
    """Answer instead of shaking hands."""
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status_code in (429, 503) else {}
    await websocket.send_denial_response(PlainTextResponse(f"{why}\n", status_code, headers))
