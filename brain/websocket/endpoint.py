"""Which address speaks which wire format."""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import QueryParams
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from brain.auth import Identity
from brain.message.channels import EVERYONE, ChannelsFormat
from brain.message.cloud_agents import CloudAgentsFormat
from brain.message.mission_control import MissionControlFormat
from brain.message.resumable import WithCursorFormat
from brain.message.runs import CHANNEL, RunsFormat
from brain.message.topic import Topic, Where, where_of
from brain.message.wire_format import WireFormat
from brain.websocket.conversation import Conversation, Wish
from brain.websocket.entrance import Entrance, Guest, enter, identified, refuse

# Asks for cursors where the URL cannot.
CURSOR_SUBPROTOCOL = "brain.cursor"

AGENT_CHANNELS = ("tasks", "agents", "messages", "notifications", "presence")
MISSION_CHANNELS = ("agents", "sessions")


def routes(entrance: Entrance) -> list[WebSocketRoute]:
    """Return the WebSocket endpoints; what they tell of lies in `state.sources`."""
    endpoints = Endpoints(entrance)
    return [
        WebSocketRoute("/ws", endpoints.runs),
        WebSocketRoute("/ws/connect", endpoints.channels),
        WebSocketRoute("/ws/channel/{name}", endpoints.channels),
        WebSocketRoute("/", endpoints.mission_control),
    ]


class Endpoints:
    """One for each kind of client."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._runs = RunsFormat()
        self._agents = CloudAgentsFormat(self._runs)
        self._runs_with_cursor = WithCursorFormat(self._runs)
        self._agents_with_cursor = WithCursorFormat(self._agents)
        self._channels, self._missions = ChannelsFormat(), MissionControlFormat()

    async def runs(self, websocket: WebSocket) -> None:
        """Speak with those who follow tasks, and with a token also agents and users."""
        subprotocol = next(
            (s for s in websocket.scope["subprotocols"] if s == CURSOR_SUBPROTOCOL), None
        )
        try:
            wish = self._wish_for_runs(websocket.query_params, subprotocol is not None)
        except ValueError as error:
            await refuse(websocket, 400, str(error))
        else:
            await converse(websocket, self._entrance, wish, subprotocol=subprotocol)

    async def channels(self, websocket: WebSocket) -> None:
        """Speak with those who subscribe to channels."""
        names = [websocket.path_params["name"]] if websocket.path_params else ()
        everyone = frozenset({Topic(EVERYONE)})
        wish = Wish(self._channels, names, implied=everyone, is_listed=True)
        await converse(websocket, self._entrance, wish)

    async def mission_control(self, websocket: WebSocket) -> None:
        """Speak with those who watch agents and sessions; a token is needed."""
        identity = await identified(websocket, self._entrance.authority)
        if identity.user is None:
            await refuse(websocket, 401, "a valid token is needed")
        else:
            wish = Wish(self._missions, MISSION_CHANNELS)
            await converse(websocket, self._entrance, wish, identity)

    def _wish_for_runs(self, asked: QueryParams, wants_cursors: bool) -> Wish:
        """Raises `ValueError`, with what is wrong."""
        wants_snapshot, is_user = "snapshot" in asked, "token" in asked
        wire_format: WireFormat = self._agents if is_user else self._runs
        if "cursor" in asked or wants_snapshot or wants_cursors:
            wire_format = self._agents_with_cursor if is_user else self._runs_with_cursor
        names = asked.getlist("channel") or (AGENT_CHANNELS if is_user else (CHANNEL,))
        where = parsed_where(asked.get("where"))
        if wants_snapshot and (where or any(":" in name for name in names)):
            raise ValueError("a snapshot is of whole channels")
        return Wish(
            wire_format,
            names,
            where,
            after=asked.get("cursor"),
            wants_snapshot=wants_snapshot,
            wants_latest=asked.get("latest", "0") != "0",
        )


async def converse(
    websocket: WebSocket,
    entrance: Entrance,
    wish: Wish,
    identity: Identity | None = None,
    subprotocol: str | None = None,
) -> None:
    """Let a client in that is told what happens on channels."""
    who = identity or await identified(websocket, entrance.authority)
    may_hear = await entrance.authority.allowed(who, wish.names)

    def begin(guest: Guest) -> Conversation:
        conversation = Conversation(guest, websocket.state.sources, entrance, wish, may_hear)
        conversation.begin()
        return conversation

    await enter(websocket, entrance, begin, who, subprotocol)


def parsed_where(text: str | None) -> Where:
    """Return the filter in a URL. Raises `ValueError`, with what is wrong, for what is none."""
    if text is None:
        return ()
    try:
        columns: Any = json.loads(text)
    except ValueError:
        raise ValueError("where must be a JSON object of columns and values") from None
    return where_of(columns)
