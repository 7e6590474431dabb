"""
The wire format of `/`: whether agents are there, and what is said in their sessions.

Source: Mission Control's WebSocket API, tests/seeds/documents/4-mission-control.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainSerializer, TypeAdapter, ValidationError

from brain.message import agents
from brain.message.acts import Act, Refresh, Reject
from brain.message.changes import row_before, row_now
from brain.message.client_frames import UNKNOWN_FORMAT, AuthFrame
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.snapshot import Snapshot
from brain.message.times import epoch_milliseconds
from brain.message.wire_format import GOING_AWAY, Welcome
from brain.message.wire_model import WireModel

PUBLISHED = {agents.CHANNEL: "agent:status", "sessions": "session:activity"}
"""What is published for these clients, by channel."""
KEYS = ("agentId", "sessionId", "status", "lastMessage", "timestamp")
"""In the order in which they are told."""

logger = logging.getLogger(__name__)

EpochMilliseconds = Annotated[
    datetime, PlainSerializer(epoch_milliseconds, return_type=int, when_used="json")
]
"""A moment, printed as `1707163200000`."""


class AgentStatus(WireModel):
    """How an agent is shown."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    agentId: str
    status: agents.Shown
    timestamp: EpochMilliseconds


class SessionActivity(WireModel):
    """What was said last in a session of an agent; empty if nothing was yet."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    agentId: str
    sessionId: str
    lastMessage: str
    timestamp: EpochMilliseconds


class Moment(WireModel):
    timestamp: EpochMilliseconds


class AgentStatusMessage(WireModel):
    """An agent is shown otherwise than before, is new, or is gone."""

    type: Literal["agent:status"] = "agent:status"
    payload: AgentStatus


class SessionActivityMessage(WireModel):
    """A session is new, or something was said in it."""

    type: Literal["session:activity"] = "session:activity"
    payload: SessionActivity


class Heartbeat(WireModel):
    """The connection lives."""

    type: Literal["heartbeat"] = "heartbeat"
    payload: Moment


class ErrorPayload(WireModel):
    error: str
    timestamp: EpochMilliseconds


class Error(WireModel):
    """What the client said was not understood, or is not allowed; the document knows of none."""

    type: Literal["error"] = "error"
    payload: ErrorPayload


class Published(WireModel):
    """Either of the first two as it was published, with whatever was in it."""

    type: Literal["agent:status", "session:activity"]
    payload: dict[str, Any]


ServerMessage = Annotated[
    AgentStatusMessage | SessionActivityMessage | Heartbeat | Error | Published,
    Field(union_mode="left_to_right"),
]
"""Everything that these clients are sent."""

SERVER_MESSAGE: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)


class MissionControlFormat:
    """Speaks with the clients of `/`."""

    name = "mission control"
    pulse_seconds: float | None = 30.0
    silence_seconds: float | None = None
    going_away_code = GOING_AWAY

    def greet(self, welcome: Welcome) -> Iterator[str]:
        return iter(())

    def render(self, event: Event) -> str | None:
        try:
            message = message_of(event)
        except ValidationError as error:
            # Only a table that Brain did not create can hold such a row.
            logger.warning("%s of %s cannot be told: %s", event.key, event.channel, error)
            return None
        return None if message is None else message.model_dump_json()

    def render_leaving(self, event: Event) -> str | None:
        return None  # these clients cannot ask for a part of a channel

    def hear(self, text: str, now: datetime, cursor: Cursor) -> Sequence[Act]:
        try:
            return (Refresh(AuthFrame.model_validate_json(text).token),)
        except ValidationError:
            return (Reject(UNKNOWN_FORMAT),)

    def confirm(self, act: Act, now: datetime) -> str | None:
        return None

    def reject(self, why: str, now: datetime) -> str | None:
        return Error(payload=ErrorPayload(error=why, timestamp=now)).model_dump_json()

    def pulse(self, now: datetime, cursor: Cursor) -> str | None:
        return Heartbeat(payload=Moment(timestamp=now)).model_dump_json()

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        return None

    def tell_snapshot(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        return iter(())


def message_of(event: Event) -> WireModel | None:
    """
    Return what is told of `event`; None if it is not.

    Raises pydantic's `ValidationError` for a row that only a table of others can hold.
    """
    if event.operation is Operation.PUBLISH:
        return published(event)
    match event.channel:
        case agents.CHANNEL:
            return agent_status(event)
        case "sessions":
            return session_activity(event)
        case _:
            return None


def agent_status(event: Event) -> AgentStatusMessage | None:
    status = agents.turn_of(event)
    row = row_now(event)
    if status is None or row is None:
        return None
    payload = {"agentId": row.get("id"), "status": status, "timestamp": event.at}
    return AgentStatusMessage(payload=AgentStatus.model_validate(payload))


def session_activity(event: Event) -> SessionActivityMessage | None:
    """Decide by the last message, which a session that is deleted leaves as it was."""
    row, before = row_now(event), row_before(event)
    if row is None:
        return None
    if before is not None and before.get("last_message") == row.get("last_message"):
        return None
    payload = {
        "agentId": row.get("agent_id"),
        "sessionId": row.get("id"),
        "lastMessage": row.get("last_message") or "",
        "timestamp": event.at,
    }
    return SessionActivityMessage(payload=SessionActivity.model_validate(payload))


def published(event: Event) -> Published | None:
    """Return a message that was published for these clients, with a timestamp in any case."""
    if PUBLISHED.get(event.channel) != event.type or not isinstance(event.data, dict):
        return None
    told = {"timestamp": epoch_milliseconds(event.at), **event.data}
    # jsonb knows no order of keys.
    first = [name for name in KEYS if name in told]
    payload = {name: told[name] for name in dict.fromkeys([*first, *told])}
    return Published.model_validate({"type": event.type, "payload": payload})
