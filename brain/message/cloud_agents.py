"""
The wire format of `/ws?token=…`: what `/ws` tells, and agents, chats, notifications and presence.

Source: the WebSocket communication of Code Cloud Agents,
tests/seeds/documents/5-code-cloud-agents.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, assert_never

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from brain.message import agents
from brain.message.acts import Act, Refresh, Reject, Say, StatePresence
from brain.message.changes import Left, row_before, row_now, row_of
from brain.message.client_frames import UNKNOWN_FORMAT, AuthFrame, ClientFrame, SignFrame
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.runs import ColumnTimestamp, Connected, RunsFormat
from brain.message.snapshot import Snapshot
from brain.message.wire_format import SERVICE_RESTART, Welcome
from brain.message.wire_model import Timestamp, WireModel

logger = logging.getLogger(__name__)

Level = Literal["info", "success", "warning", "error"]
Presence = Literal["online", "away", "busy", "offline"]


class AuthData(WireModel):
    success: bool
    userId: str | None = None


class AgentStatusData(WireModel):
    """What an agent does; without the keys of which nothing is known."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    agentName: str
    state: agents.State
    currentTask: str | None = None
    progress: int | float | None = None


class ChatMessageData(WireModel):
    """A row of `messages`."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    conversationId: str
    messageId: str
    content: str
    sender: str
    timestamp: ColumnTimestamp


class NotificationData(WireModel):
    level: Level
    message: str


class UserPresenceData(WireModel):
    userId: str
    status: Presence


class ErrorData(WireModel):
    error: str


class Auth(WireModel):
    """Whether the client is known, as whom; and that another token has been taken."""

    type: Literal["auth"] = "auth"
    data: AuthData
    timestamp: Timestamp


class Sign(WireModel):
    """A sign of life, or the answer to one."""

    type: Literal["ping", "pong"]
    timestamp: Timestamp


class AgentStatus(WireModel):
    """An agent does something else, or is gone, which is told as stopped."""

    type: Literal["agent_status"] = "agent_status"
    data: AgentStatusData
    timestamp: Timestamp


class ChatMessage(WireModel):
    """Something was said in a conversation, or reworded."""

    type: Literal["chat_message"] = "chat_message"
    data: ChatMessageData
    timestamp: Timestamp


class Notification(WireModel):
    """Something that everybody, or one user, is to know."""

    type: Literal["notification"] = "notification"
    data: NotificationData
    timestamp: Timestamp


class UserPresence(WireModel):
    """How a user is."""

    type: Literal["user_presence"] = "user_presence"
    data: UserPresenceData
    timestamp: Timestamp


class Error(WireModel):
    """What the client said was not understood, or is not allowed."""

    type: Literal["error"] = "error"
    data: ErrorData
    timestamp: Timestamp


OwnMessage = Annotated[
    Auth | Sign | AgentStatus | ChatMessage | Notification | UserPresence | Error,
    Field(discriminator="type"),
]
"""What these clients are sent beside what those of `/ws` are."""

OWN_MESSAGE: TypeAdapter[OwnMessage] = TypeAdapter(OwnMessage)


PUBLISHED = ("agent_status", "chat_message", "notification", "user_presence")


class PresenceFrame(ClientFrame):
    """How the client's user is. That he has gone is for Brain to say."""

    type: Literal["user_presence"]
    data: Literal["online", "away", "busy"]


CLIENT_FRAME: TypeAdapter[SignFrame | PresenceFrame | AuthFrame] = TypeAdapter(
    Annotated[SignFrame | PresenceFrame | AuthFrame, Field(discriminator="type")]
)


class CloudAgentsFormat:
    """Speaks with the clients of `/ws?token=…`: as `runs` does, and of more."""

    name = "cloud agents"
    pulse_seconds: float | None = 30.0
    silence_seconds: float | None = 60.0
    going_away_code = SERVICE_RESTART

    def __init__(self, runs: RunsFormat) -> None:
        self._runs = runs

    def greet(self, welcome: Welcome) -> Iterator[str]:
        yield Connected(timestamp=welcome.now).model_dump_json()
        yield auth(welcome.user is not None, welcome.user, welcome.now)

    def render(self, event: Event) -> str | None:
        row = row_now(event)
        if event.type is not None or row is None:
            return published(event) or self._runs.render(event)
        try:
            match event.channel:
                case agents.CHANNEL:
                    return agent_status(event, row)
                case "messages" if event.operation is not Operation.DELETE:
                    return chat_message(event, row)
                case _:
                    return self._runs.render(event)
        except ValidationError as error:
            # Only a table that Brain did not create can hold such a row.
            logger.warning("%s of %s cannot be told: %s", event.key, event.channel, error)
            return None

    def render_leaving(self, event: Event) -> str | None:
        return Left(data=row_of(event), timestamp=event.at).model_dump_json()

    def hear(self, text: str, now: datetime, cursor: Cursor) -> Sequence[Act]:
        try:
            frame = CLIENT_FRAME.validate_json(text)
        except ValidationError:
            return (Reject(UNKNOWN_FORMAT),)
        match frame:
            case SignFrame():
                return (Say(sign("pong", now)),) if frame.type == "ping" else ()
            case PresenceFrame():
                return (StatePresence(frame.data),)
            case AuthFrame():
                return (Refresh(frame.token),)
            case _:
                assert_never(frame)

    def confirm(self, act: Act, now: datetime) -> str | None:
        return auth(True, None, now) if isinstance(act, Refresh) else None

    def reject(self, why: str, now: datetime) -> str | None:
        return Error(data=ErrorData(error=why), timestamp=now).model_dump_json()

    def pulse(self, now: datetime, cursor: Cursor) -> str | None:
        return sign("ping", now)

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        return None

    def tell_snapshot(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        return iter(())


def published(event: Event) -> str | None:
    """Return one of these clients' own messages as it is printed; None for any other."""
    if event.operation is not Operation.PUBLISH or event.type not in PUBLISHED:
        return None
    message = {"type": event.type, "data": event.data, "timestamp": event.at}
    try:
        return OWN_MESSAGE.validate_python(message).model_dump_json(exclude_none=True)
    except ValidationError:
        return None


def auth(success: bool, user: str | None, now: datetime) -> str:
    data = AuthData(success=success, userId=user)
    return Auth(data=data, timestamp=now).model_dump_json(exclude_none=True)


def sign(type: Literal["ping", "pong"], now: datetime) -> str:
    return Sign(type=type, timestamp=now).model_dump_json()


def agent_status(event: Event, row: dict[str, Any]) -> str | None:
    """Return the message about an agent; None if nothing that these clients see has changed."""
    before = row_before(event)
    if event.operation is Operation.DELETE:
        row = {**row, "status": "stopped"}
    elif before is not None and seen(before) == seen(row):
        return None
    data = AgentStatusData.model_validate(seen(row))
    return AgentStatus(data=data, timestamp=event.at).model_dump_json(exclude_none=True)


def seen(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of `agents` as these clients see it; one without a name by its id."""
    return {
        "agentName": row.get("id") if row.get("name") is None else row["name"],
        "state": agents.STATES.get(row.get("status")),
        "currentTask": row.get("current_task"),
        "progress": row.get("progress"),
    }


def chat_message(event: Event, row: dict[str, Any]) -> str:
    data = ChatMessageData.model_validate(
        {
            "conversationId": row.get("conversation_id"),
            "messageId": row.get("id"),
            "content": row.get("content"),
            "sender": row.get("sender"),
            "timestamp": row.get("created_at"),
        }
    )
    return ChatMessage(data=data, timestamp=event.at).model_dump_json()
