"""
The wire format of `/ws/connect` and `/ws/channel/{name}`: a client subscribes to channels.

Source: the BRAiN WebSocket System, tests/seeds/documents/2-brain-websocket-system.md. Brain's own
are two client frames: `"where": {"agent": "dev"}` in a `subscribe`, for a part of a channel, and
`{"type": "auth", "token": "…"}`, to go on with another token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, assert_never
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError

from brain.message.client_frames import AuthFrame, ClientFrame, HeartbeatFrame
from brain.message.commands import Command, Reauthenticate, Refuse, Reply, Subscribe, Unsubscribe
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.json_text import dumps
from brain.message.matching import INTERNAL, filter_json, parse_filter
from brain.message.wire_format import Welcome, WireFormat
from brain.message.wire_model import WireModel, models_in
from brain.systems.channels.messages import (
    AgentEvent,
    AgentHeartbeat,
    BroadcastEvent,
    ChannelEvent,
    EpochSeconds,
    LeftEvent,
    MissionEvent,
    ResetEvent,
    TaskEvent,
    channel_event,
    left_event,
)


class Connected(WireModel):
    """The first message of every connection."""

    type: Literal["connected"] = "connected"
    connection_id: UUID
    timestamp: EpochSeconds


class Confirmed(WireModel):
    """A subscription has begun or ended."""

    type: Literal["subscribed", "unsubscribed"]
    channel: str
    timestamp: EpochSeconds


class Signal(WireModel):
    """A heartbeat, the answer to one, or that another token was accepted."""

    type: Literal["ping", "pong", "authenticated"]
    timestamp: EpochSeconds


class Error(WireModel):
    """A client frame was malformed or not allowed."""

    type: Literal["error"] = "error"
    error: str
    timestamp: EpochSeconds


ServerMessage = Annotated[
    Connected
    | Confirmed
    | Signal
    | Error
    | TaskEvent
    | MissionEvent
    | AgentEvent
    | AgentHeartbeat
    | LeftEvent
    | ResetEvent
    | ChannelEvent
    | BroadcastEvent,
    Field(union_mode="left_to_right"),
]
"""Everything that these clients are sent; the last two are for all other rows and messages."""

SERVER_MESSAGE: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)


class ChannelFrame(ClientFrame):
    """Subscribe or unsubscribe; `where` says which values a row must have."""

    type: Literal["subscribe", "unsubscribe"]
    # PostgreSQL's text cannot hold a zero, so no channel has one in its name.
    channel: str = Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")
    where: dict[str, Any] = Field(default_factory=dict, max_length=32)
    latest: bool = False
    """While the client lags, superseded messages may be skipped."""


CLIENT_FRAME: TypeAdapter[ChannelFrame | HeartbeatFrame | AuthFrame] = TypeAdapter(
    Annotated[ChannelFrame | HeartbeatFrame | AuthFrame, Field(discriminator="type")]
)


STANDARD_CHANNELS = ("missions", "agents", "system", "tasks", "audit", "metrics")

EVERYONE = f"{INTERNAL}everyone"
"""Every client of this format is subscribed to it."""

NO_OBJECT = "expected a JSON object"

HEARTBEAT_SECONDS, CLIENT_TIMEOUT_SECONDS = 30.0, 60.0


class ChannelsFormat(WireFormat):
    """Speaks with the clients of `/ws/connect` and `/ws/channel/{name}`."""

    name = "channels"
    sent_models = models_in(ServerMessage)
    received_models = (ChannelFrame, HeartbeatFrame, AuthFrame)
    heartbeat_seconds = HEARTBEAT_SECONDS
    client_timeout_seconds = CLIENT_TIMEOUT_SECONDS

    def greet(self, welcome: Welcome) -> Iterator[str]:
        yield Connected(
            connection_id=welcome.connection_id, timestamp=welcome.now
        ).model_dump_json()

    def render(self, event: Event) -> str | None:
        message = channel_event(event)
        if message is None:
            return None
        if event.channel == EVERYONE:
            del message["channel"]
        return dumps(message)

    def render_leaving(self, event: Event) -> str | None:
        return dumps(left_event(event))

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        try:
            frame = CLIENT_FRAME.validate_python(filter_json(text))
            where = parse_filter(frame.where) if isinstance(frame, ChannelFrame) else ()
        except (json.JSONDecodeError, RecursionError):
            return (Refuse(NO_OBJECT),)
        except ValidationError as error:
            return (Refuse(first_problem(error)),)
        except ValueError as error:
            return (Refuse(str(error)),)
        match frame:
            case ChannelFrame():
                if frame.type == "unsubscribe":
                    return (Unsubscribe(frame.channel, where),)
                return (Subscribe(frame.channel, where, conflates=frame.latest),)
            case HeartbeatFrame():
                return (Reply(signal("pong", now)),) if frame.type == "ping" else ()
            case AuthFrame():
                return (Reauthenticate(frame.token),)
            case _:
                assert_never(frame)

    def confirm(self, command: Command, now: datetime) -> str | None:
        match command:
            case Subscribe():
                return confirmed("subscribed", command.name, now)
            case Unsubscribe():
                return confirmed("unsubscribed", command.name, now)
            case Reauthenticate():
                return signal("authenticated", now)
            case _:
                return None

    def refuse(self, reason: str, now: datetime) -> str | None:
        return Error(error=reason, timestamp=now).model_dump_json()

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return signal("ping", now)


def confirmed(type: Literal["subscribed", "unsubscribed"], channel: str, now: datetime) -> str:
    return Confirmed(type=type, channel=channel, timestamp=now).model_dump_json()


def signal(type: Literal["ping", "pong", "authenticated"], now: datetime) -> str:
    return Signal(type=type, timestamp=now).model_dump_json()


def first_problem(error: ValidationError) -> str:
    """Return in a short line what is wrong with a client frame."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    match first["loc"]:
        case ():
            if first["type"].startswith("union_tag"):
                return "expected a type: auth, ping, pong, subscribe or unsubscribe"
            return NO_OBJECT
        case (_, key, *_):
            # What may follow is the client's own text, of any length.
            return f"{key}: {first['msg']}"
        case _:
            return first["msg"]
