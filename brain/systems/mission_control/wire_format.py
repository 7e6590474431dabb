"""
The wire format of `/`: the status of agents, and the activity of their sessions.

Source: Mission Control's WebSocket API, tests/seeds/documents/4-mission-control.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainSerializer, TypeAdapter, ValidationError

from brain.close_codes import CloseCode
from brain.message.client_frames import UNKNOWN_FORMAT, AuthFrame
from brain.message.commands import Command, Reauthenticate, Refuse
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.row_messages import row_after, row_before
from brain.message.skipped_rows import SkippedRows
from brain.message.timestamps import epoch_milliseconds
from brain.message.wire_format import WireFormat
from brain.message.wire_model import WireModel
from brain.systems.shared_tables.agents import rows as agents

PUBLISHED = {agents.CHANNEL: "agent:status", "sessions": "session:activity"}
"""What is published for these clients, by channel."""
KEYS = ("agentId", "sessionId", "status", "lastMessage", "timestamp")
"""In the order in which they are sent."""

EpochMilliseconds = Annotated[
    datetime, PlainSerializer(epoch_milliseconds, return_type=int, when_used="json")
]
"""A moment, printed as `1707163200000`."""


class AgentStatus(WireModel):
    """The status of an agent."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    agentId: str
    status: agents.Shown
    timestamp: EpochMilliseconds


class SessionActivity(WireModel):
    """The last message in a session of an agent; empty if there is none yet."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    agentId: str
    sessionId: str
    lastMessage: str
    timestamp: EpochMilliseconds


class Moment(WireModel):
    timestamp: EpochMilliseconds


class AgentStatusMessage(WireModel):
    """An agent is new, deleted, or has another status."""

    type: Literal["agent:status"] = "agent:status"
    payload: AgentStatus


class SessionActivityMessage(WireModel):
    """A session is new, or has another last message."""

    type: Literal["session:activity"] = "session:activity"
    payload: SessionActivity


class Heartbeat(WireModel):
    """The connection is alive."""

    type: Literal["heartbeat"] = "heartbeat"
    payload: Moment


class ErrorPayload(WireModel):
    error: str
    timestamp: EpochMilliseconds


class Error(WireModel):
    """A client frame was malformed or not allowed; the document has no such message."""

    type: Literal["error"] = "error"
    payload: ErrorPayload


class Published(WireModel):
    """Either of the first two as it was published, with all its keys."""

    type: Literal["agent:status", "session:activity"]
    payload: dict[str, Any]


ServerMessage = Annotated[
    AgentStatusMessage | SessionActivityMessage | Heartbeat | Error | Published,
    Field(union_mode="left_to_right"),
]
"""Everything that these clients are sent."""

SERVER_MESSAGE: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)


class MissionControlFormat(WireFormat):
    """Speaks with the clients of `/`."""

    name = "mission_control"
    heartbeat_seconds = 30.0
    going_away_code = CloseCode.GOING_AWAY

    def __init__(self) -> None:
        self._skipped = SkippedRows(self.name)

    def render(self, event: Event) -> str | None:
        try:
            message = message_of(event)
        except ValidationError as error:
            # Only a table that Brain did not create can hold such a row.
            self._skipped.warn(event.channel, error)
            return None
        return None if message is None else message.model_dump_json()

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        try:
            return (Reauthenticate(AuthFrame.model_validate_json(text).token),)
        except ValidationError:
            return (Refuse(UNKNOWN_FORMAT),)

    def refuse(self, reason: str, now: datetime) -> str | None:
        return Error(payload=ErrorPayload(error=reason, timestamp=now)).model_dump_json()

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return Heartbeat(payload=Moment(timestamp=now)).model_dump_json()


def message_of(event: Event) -> WireModel | None:
    """
    Return the message for `event`; None if there is none.

    Raises pydantic's `ValidationError` for a row with values that Brain's own tables refuse.
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
    status = agents.changed_status(event)
    row = row_after(event)
    if status is None or row is None:
        return None
    payload = {"agentId": row.get("id"), "status": status, "timestamp": event.at}
    return AgentStatusMessage(payload=AgentStatus.model_validate(payload))


def session_activity(event: Event) -> SessionActivityMessage | None:
    """Return a message if the last message changed; a deletion leaves it as it was."""
    row, before = row_after(event), row_before(event)
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
    data = {"timestamp": epoch_milliseconds(event.at), **event.data}
    # jsonb knows no order of keys.
    first = [name for name in KEYS if name in data]
    payload = {name: data[name] for name in dict.fromkeys([*first, *data])}
    return Published.model_validate({"type": event.type, "payload": payload})
