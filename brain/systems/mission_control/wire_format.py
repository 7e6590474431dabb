"""
The wire format of `/`: the status of agents, and the activity of their sessions.

Source: Mission Control's WebSocket API, tests/seeds/documents/4-mission-control.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import ConfigDict, Field, PlainSerializer, TypeAdapter, ValidationError

from brain.close_codes import CloseCode
from brain.errors import RowNotShown
from brain.message.client_frames import UNKNOWN_FORMAT, AuthFrame
from brain.message.commands import Command, Reauthenticate, Refuse
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.json_text import dumps
from brain.message.row_messages import omitted
from brain.message.timestamps import epoch_milliseconds
from brain.message.wire_format import WireFormat
from brain.message.wire_model import WireModel, models_in
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
    """When it was sent."""

    timestamp: EpochMilliseconds


class AgentStatusMessage(WireModel):
    """An agent is new, deleted, or has another status."""

    type: Literal["agent:status"] = "agent:status"
    payload: AgentStatus


class SessionActivityMessage(WireModel):
    """A session is new, or has another last message."""

    type: Literal["session:activity"] = "session:activity"
    payload: SessionActivity
    omitted: list[str] = Field(default_factory=list)
    """The columns that the row lacks, if there are any; without `last_message` that is empty."""


class Heartbeat(WireModel):
    """The connection is alive."""

    type: Literal["heartbeat"] = "heartbeat"
    payload: Moment


class ErrorPayload(WireModel):
    """What is wrong."""

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
    sent_models = models_in(ServerMessage)
    received_models = (AuthFrame,)
    heartbeat_seconds = 30.0
    going_away_code = CloseCode.GOING_AWAY

    def render(self, event: Event) -> str | None:
        if event.operation is Operation.PUBLISH:
            return published(event)
        match event.channel:
            case agents.CHANNEL:
                return agent_status(event)
            case "sessions":
                return session_activity(event)
            case _:
                return None

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        try:
            return (Reauthenticate(AuthFrame.model_validate_json(text).token),)
        except ValidationError:
            return (Refuse(UNKNOWN_FORMAT),)

    def refuse(self, reason: str, now: datetime) -> str | None:
        return Error(payload=ErrorPayload(error=reason, timestamp=now)).model_dump_json()

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return Heartbeat(payload=Moment(timestamp=now)).model_dump_json()


def agent_status(event: Event) -> str | None:
    status = agents.changed_status(event)
    if status is None or event.row is None:
        return None
    payload = {
        "agentId": event.row.string("id"),
        "status": None if status == "unknown" else status,
        "timestamp": epoch_milliseconds(event.at),
    }
    AgentStatus.check_row(payload)
    return dumps({"type": "agent:status", "payload": payload})


def session_activity(event: Event) -> str | None:
    """Return a message if the last message changed; a deletion leaves it as it was."""
    row, before = event.row, event.former
    if row is None or event.operation is Operation.DELETE:
        return None
    if before is not None and not event.has_changed("last_message") and not event.has_changed("id"):
        return None
    payload = {
        "agentId": row.string("agent_id") or "",
        "sessionId": row.string("id"),
        "lastMessage": row.string("last_message") or "",
        "timestamp": epoch_milliseconds(event.at),
    }
    SessionActivity.check_row(payload)
    return dumps({"type": "session:activity", "payload": payload} | omitted(event))


def published(event: Event) -> str | None:
    """Return a message that was published for these clients, with a timestamp in any case."""
    if PUBLISHED.get(event.channel) != event.type or event.row is None:
        return None
    data: dict[str, Any] = {"timestamp": epoch_milliseconds(event.at)}
    try:
        data |= {name: orjson.Fragment(event.row.text(name)) for name in event.row.names()}
    except RowNotShown:
        return None  # no object
    # jsonb knows no order of keys.
    first = [name for name in KEYS if name in data]
    payload = {name: data[name] for name in dict.fromkeys([*first, *data])}
    return dumps({"type": event.type, "payload": payload})
