"""
The wire format of `/ws?token=…`: that of `/ws`, and agents, chats, notifications and presence.

Source: the WebSocket communication of Code Cloud Agents,
tests/seeds/documents/5-code-cloud-agents.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Literal, assert_never

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from brain.message.base_format import BaseFormat, Echo
from brain.message.channel_schema import ChannelSchemas
from brain.message.client_frames import UNKNOWN_FORMAT, AuthFrame, ClientFrame, HeartbeatFrame
from brain.message.commands import Command, Reauthenticate, Refuse, Reply, SetPresence
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.json_text import dumps
from brain.message.row import Row
from brain.message.row_messages import omitted
from brain.message.timestamps import iso_milliseconds, shown_moment
from brain.message.wire_format import Welcome
from brain.message.wire_model import Timestamp, WireModel, models_in
from brain.systems.shared_tables.agents import rows as agents

Level = Literal["info", "success", "warning", "error"]
Presence = Literal["online", "away", "busy", "offline"]


class AuthData(WireModel):
    """Whether the token is valid."""

    success: bool
    userId: str | None = None
    error: str | None = None


class AgentStatusData(WireModel):
    """What an agent does; without the keys that are not known."""

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
    timestamp: Timestamp | None


class NotificationData(WireModel):
    """What a notification says."""

    level: Level
    message: str


class UserPresenceData(WireModel):
    """Who is present."""

    userId: str
    status: Presence


class ErrorData(WireModel):
    """What is wrong."""

    error: str


class Auth(WireModel):
    """Whether the token is valid, and of which user; also that another one was accepted."""

    type: Literal["auth"] = "auth"
    data: AuthData
    timestamp: Timestamp


class Signal(WireModel):
    """A heartbeat, or the answer to one."""

    type: Literal["ping", "pong"]
    timestamp: Timestamp


class AgentStatus(WireModel):
    """The state of an agent; a deleted one is shown as stopped."""

    type: Literal["agent_status"] = "agent_status"
    data: AgentStatusData
    timestamp: Timestamp
    omitted: list[str] = Field(default_factory=list)
    """The columns that the row lacks, if there are any: too large, or unreadable."""


class ChatMessage(WireModel):
    """A message was added to a conversation, or edited."""

    type: Literal["chat_message"] = "chat_message"
    data: ChatMessageData
    timestamp: Timestamp
    omitted: list[str] = Field(default_factory=list)
    """The columns that the row lacks, if there are any; a text that is missing is empty."""


class Notification(WireModel):
    """A notification for all clients, or for one user."""

    type: Literal["notification"] = "notification"
    data: NotificationData
    timestamp: Timestamp


class UserPresence(WireModel):
    """The presence of a user."""

    type: Literal["user_presence"] = "user_presence"
    data: UserPresenceData
    timestamp: Timestamp


class Error(WireModel):
    """A client frame was malformed or not allowed."""

    type: Literal["error"] = "error"
    data: ErrorData
    timestamp: Timestamp


OwnMessage = Annotated[
    Auth | Signal | AgentStatus | ChatMessage | Notification | UserPresence | Error,
    Field(discriminator="type"),
]
"""What these clients are sent in addition to the messages of `/ws`."""

OWN_MESSAGE: TypeAdapter[OwnMessage] = TypeAdapter(OwnMessage)


PUBLISHED = ("agent_status", "chat_message", "notification", "user_presence")


class PresenceFrame(ClientFrame):
    """The presence of the client's user; `offline`: to appear so while connected."""

    type: Literal["user_presence"]
    data: Presence


AUTH_FAILED = "Auth failed"

CLIENT_FRAME: TypeAdapter[HeartbeatFrame | PresenceFrame | AuthFrame] = TypeAdapter(
    Annotated[HeartbeatFrame | PresenceFrame | AuthFrame, Field(discriminator="type")]
)


class CloudAgentsFormat(BaseFormat):
    """Speaks with the clients of `/ws?token=…`."""

    name = "cloud_agents"
    received_models = (HeartbeatFrame, PresenceFrame, AuthFrame)
    heartbeat_seconds = 30.0
    client_timeout_seconds = 60.0

    def __init__(
        self, schemas: ChannelSchemas | None = None, greeting: str | None = "Connected to Brain"
    ) -> None:
        """`greeting` is the text of `connected`; None: the clients are not sent that message."""
        super().__init__(schemas, greeting or "")
        self._is_greeted = greeting is not None
        theirs = [model for model in self.sent_models if model is not Echo]
        self.sent_models = [*models_in(OwnMessage), *theirs]

    def greet(self, welcome: Welcome) -> Iterator[str]:
        if welcome.user is None:
            yield auth(AuthData(success=False, error=AUTH_FAILED), welcome.now)
        else:
            yield auth(AuthData(success=True, userId=welcome.user), welcome.now)
        if self._is_greeted:
            yield from super().greet(welcome)

    def render(self, event: Event) -> str | None:
        row = event.row
        if event.type is not None or row is None:
            return published(event) or super().render(event)
        match event.channel:
            case agents.CHANNEL:
                return agent_status(event, row)
            case "messages" if event.operation is not Operation.DELETE:
                return chat_message(event, row)
            case _:
                return super().render(event)

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        try:
            frame = CLIENT_FRAME.validate_json(text)
        except ValidationError:
            return (Refuse(UNKNOWN_FORMAT),)
        match frame:
            case HeartbeatFrame():
                return (Reply(signal("pong", now)),) if frame.type == "ping" else ()
            case PresenceFrame():
                return (SetPresence(frame.data),)
            case AuthFrame():
                return (Reauthenticate(frame.token),)
            case _:
                assert_never(frame)

    def confirm(self, command: Command, now: datetime) -> str | None:
        return auth(AuthData(success=True), now) if isinstance(command, Reauthenticate) else None

    def refuse(self, reason: str, now: datetime) -> str | None:
        return Error(data=ErrorData(error=reason), timestamp=now).model_dump_json()

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return signal("ping", now)


def published(event: Event) -> str | None:
    """Return one of these clients' own messages as JSON; None for any other."""
    if event.operation is not Operation.PUBLISH or event.type not in PUBLISHED:
        return None
    data = orjson.Fragment(event.data or "null")
    text = dumps({"type": event.type, "data": data, "timestamp": iso_milliseconds(event.at)})
    try:
        message = OWN_MESSAGE.validate_json(text).model_dump(
            mode="json", exclude_none=True, exclude={"omitted"}
        )
    except ValidationError:
        return None
    assert event.row is not None
    shown = message["data"]
    # The model has rounded numbers, also those that it shows as texts.
    for name in shown.keys() & {"agentName", "conversationId", "messageId", "content", "sender"}:
        shown[name] = event.row.string(name)
    if "progress" in shown:
        shown["progress"] = event.row.number("progress")
        if shown["progress"] is None:
            return None
    return dumps(message)


def auth(data: AuthData, now: datetime) -> str:
    return Auth(data=data, timestamp=now).model_dump_json(exclude_none=True)


def signal(type: Literal["ping", "pong"], now: datetime) -> str:
    return Signal(type=type, timestamp=now).model_dump_json()


def agent_status(event: Event, row: Row) -> str | None:
    """Return the message about an agent; None if these clients see no difference."""
    state = agents.STATES.get(row.string("status"))
    before = agents.row_before(event)
    if event.operation is Operation.DELETE:
        state = "stopped"
    elif before is not None and agents.STATES.get(before.string("status")) == state:
        # A value that was left out may have changed: it cannot be compared.
        if not any(map(event.has_changed, ("name", "current_task", "progress"))):
            return None
    values = {
        "agentName": row.string("name") or row.string("id"),
        "state": state,
        "currentTask": row.string("current_task"),
        "progress": row.number("progress"),
    }
    AgentStatusData.check_row(values)
    data = {name: value for name, value in values.items() if value is not None}
    message = {"type": "agent_status", "data": data, "timestamp": iso_milliseconds(event.at)}
    return dumps(message | omitted(event))


def chat_message(event: Event, row: Row) -> str:
    data = {
        "conversationId": row.string("conversation_id") or "",
        "messageId": row.string("id"),
        "content": row.string("content") or "",
        "sender": row.string("sender") or "",
        "timestamp": shown_moment(row.string("created_at")),
    }
    ChatMessageData.check_row(data)
    message = {"type": "chat_message", "data": data, "timestamp": iso_milliseconds(event.at)}
    return dumps(message | omitted(event))
