"""
The wire format of `/ws/connect` and `/ws/channel/{name}`: a client subscribes to channels.

Source: the BRAiN WebSocket System, tests/seeds/documents/2-brain-websocket-system.md. Two things
that a client may say are Brain's own: `"where": {"agent": "dev"}` in a `subscribe`, for a part of a
channel, and `{"type": "auth", "token": "…"}`, to go on with another token.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Literal, assert_never
from uuid import UUID

from pydantic import Field, StrictBool, StrictInt, StrictStr, TypeAdapter, ValidationError

from brain.message.acts import Act, Refresh, Reject, Say, Subscribe, Unsubscribe
from brain.message.channel_events import (
    AgentEvent,
    AgentHeartbeat,
    ChannelEvent,
    EpochSeconds,
    LeftEvent,
    MissionEvent,
    TaskEvent,
    channel_event,
    left_event,
)
from brain.message.client_frames import AuthFrame, ClientFrame, SignFrame
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.snapshot import Snapshot
from brain.message.topic import INTERNAL, where_of
from brain.message.wire_format import SERVICE_RESTART, Welcome
from brain.message.wire_model import WireModel

logger = logging.getLogger(__name__)


class Connected(WireModel):
    """The first message of every connection."""

    type: Literal["connected"] = "connected"
    connection_id: UUID
    timestamp: EpochSeconds


class Confirmed(WireModel):
    """The client hears a channel from now on, or no longer."""

    type: Literal["subscribed", "unsubscribed"]
    channel: str
    timestamp: EpochSeconds


class Sign(WireModel):
    """A sign of life, the answer to one, or that another token has been taken."""

    type: Literal["ping", "pong", "authenticated"]
    timestamp: EpochSeconds


class Error(WireModel):
    """What the client said was not understood, or is not allowed."""

    type: Literal["error"] = "error"
    error: str
    timestamp: EpochSeconds


ServerMessage = Annotated[
    Connected
    | Confirmed
    | Sign
    | Error
    | TaskEvent
    | MissionEvent
    | AgentEvent
    | AgentHeartbeat
    | LeftEvent
    | ChannelEvent,
    Field(union_mode="left_to_right"),
]
"""Everything that these clients are sent; the last is whatever else happens or is published."""

SERVER_MESSAGE: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)

FiniteFloat = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class ChannelFrame(ClientFrame):
    """A wish to hear a channel, or no longer; `where` says which values a row must have."""

    type: Literal["subscribe", "unsubscribe"]
    # PostgreSQL's text cannot hold a zero, so no channel has one in its name.
    channel: str = Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")
    where: dict[str, StrictBool | StrictInt | FiniteFloat | StrictStr | None] = Field(
        default_factory=dict, max_length=32
    )
    latest: bool = False
    """Whether the client may be spared what has been overtaken, while it is behind."""


CLIENT_FRAME: TypeAdapter[ChannelFrame | SignFrame | AuthFrame] = TypeAdapter(
    Annotated[ChannelFrame | SignFrame | AuthFrame, Field(discriminator="type")]
)


STANDARD_CHANNELS = ("missions", "agents", "system", "tasks", "audit", "metrics")

EVERYONE = f"{INTERNAL}everyone"
"""What all clients of these formats are told, whatever they have subscribed to."""

PULSE_SECONDS, SILENCE_SECONDS = 30.0, 60.0


class ChannelsFormat:
    """Speaks with the clients of `/ws/connect` and `/ws/channel/{name}`."""

    name = "channels"
    pulse_seconds: float | None = PULSE_SECONDS
    silence_seconds: float | None = SILENCE_SECONDS
    going_away_code = SERVICE_RESTART

    def greet(self, welcome: Welcome) -> Iterator[str]:
        yield Connected(
            connection_id=welcome.connection_id, timestamp=welcome.now
        ).model_dump_json()

    def render(self, event: Event) -> str | None:
        try:
            message = channel_event(event)
        except ValidationError as error:
            # Only a table that Brain did not create can hold such a row.
            logger.warning("%s of %s cannot be told: %s", event.key, event.channel, error)
            return None
        if message is None:
            return None
        return message.model_dump_json(exclude={"channel"} if event.channel == EVERYONE else None)

    def render_leaving(self, event: Event) -> str | None:
        return left_event(event).model_dump_json()

    def hear(self, text: str, now: datetime, cursor: Cursor) -> Sequence[Act]:
        try:
            frame = CLIENT_FRAME.validate_json(text)
        except ValidationError as error:
            return (Reject(reason(error)),)
        match frame:
            case ChannelFrame(type="subscribe"):
                where = where_of(frame.where)
                return (Subscribe(frame.channel, where, wants_latest=frame.latest),)
            case ChannelFrame():
                return (Unsubscribe(frame.channel, where_of(frame.where)),)
            case SignFrame():
                return (Say(sign("pong", now)),) if frame.type == "ping" else ()
            case AuthFrame():
                return (Refresh(frame.token),)
            case _:
                assert_never(frame)

    def confirm(self, act: Act, now: datetime) -> str | None:
        match act:
            case Subscribe():
                return confirmed("subscribed", act.name, now)
            case Unsubscribe():
                return confirmed("unsubscribed", act.name, now)
            case Refresh():
                return sign("authenticated", now)
            case _:
                return None

    def reject(self, why: str, now: datetime) -> str | None:
        return Error(error=why, timestamp=now).model_dump_json()

    def pulse(self, now: datetime, cursor: Cursor) -> str | None:
        return sign("ping", now)

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        return None

    def tell_snapshot(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        return iter(())


def confirmed(type: Literal["subscribed", "unsubscribed"], channel: str, now: datetime) -> str:
    return Confirmed(type=type, channel=channel, timestamp=now).model_dump_json()


def sign(type: Literal["ping", "pong", "authenticated"], now: datetime) -> str:
    return Sign(type=type, timestamp=now).model_dump_json()


def reason(error: ValidationError) -> str:
    """Return in a short line what is wrong with what a client said."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    match first["loc"]:
        case ():
            if first["type"].startswith("union_tag"):
                return "expected a type: auth, ping, pong, subscribe or unsubscribe"
            return "expected a JSON object"
        case (_, key, *_):
            # What may follow are words of the client's own, of any length.
            return f"{key}: {first['msg']}"
        case _:
            return first["msg"]
