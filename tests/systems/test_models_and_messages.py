"""Messages about rows are made without their models, and are what the models print."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brain.errors import RowNotShown
from brain.message.base_format import BaseFormat
from brain.message.channel_schema import ChannelSchemas
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.row import Row
from brain.message.wire_format import WireFormat
from brain.systems.channels import messages as channels
from brain.systems.channels.wire_format import ChannelsFormat
from brain.systems.cloud_agents import wire_format as cloud
from brain.systems.mission_control import wire_format as mission_control
from brain.systems.shared_tables.agents import rows as agents
from tests.systems.hostile_texts import MOMENTS, TEXTS, odd_columns, written

CHANNELS, CLOUD = ChannelsFormat(), cloud.CloudAgentsFormat(ChannelSchemas())
MISSION_CONTROL = mission_control.MissionControlFormat()

STATUSES = tuple(f'"{name}"' for name in (*agents.SHOWN, "created", "started", "away"))
# Models print other digits than the table has, and JSON without spaces.
WHOLE = ("0", "-5", '"7"', "null", "123456789012")
COMPACT = ("null", "7", '"text"', '{"a":[1,null]}', "true")

USUAL: dict[str, dict[str, tuple[str, ...]]] = {
    "agents": {"id": TEXTS, "name": TEXTS, "status": STATUSES, "current_task": TEXTS}
    | {"error": TEXTS, "heartbeat_at": MOMENTS},
    "missions": {"id": TEXTS, "name": TEXTS, "priority": TEXTS, "status": STATUSES, "error": TEXTS},
    "sessions": {"id": TEXTS, "agent_id": TEXTS, "last_message": TEXTS},
    "messages": {"id": TEXTS, "conversation_id": TEXTS, "content": TEXTS, "sender": TEXTS}
    | {"created_at": MOMENTS},
}
EXACT: dict[str, dict[str, tuple[str, ...]]] = {
    "agents": {"progress": WHOLE, "health": COMPACT},
    "missions": {"result": COMPACT},
}


def rows(channel: str) -> st.SearchStrategy[dict[str, str]]:
    exact = {
        name: st.sampled_from(texts) | st.just("") for name, texts in EXACT.get(channel, {}).items()
    }
    return st.builds(
        lambda odd, even: odd | even,
        odd_columns(**USUAL[channel]),
        st.fixed_dictionaries({}, optional=exact),
    )


def happened(channel: str, row: dict[str, str] | None, former: dict[str, str] | None) -> Event:
    data, old = (None if one is None else written(one) for one in (row, former))
    operation = Operation.INSERT if old is None else Operation.UPDATE
    operation = Operation.DELETE if data is None else operation
    at = datetime(2026, 2, 6, 1, 30, 15, 250_000, tzinfo=UTC)
    return Event(*Cursor(7, 8, 9), at, channel, operation, "[1]", data, old, 300)


def whole(row: Row, name: str) -> int | None:
    text = row.text(name).strip('"')
    return None if text == "null" else int(text)


def exact(row: Row, name: str) -> Any:
    return json.loads(row.text(name))


def agent_on_a_channel(event: Event, row: Row) -> str | None:
    data = channels.AgentData.from_row(
        {name: row.string(name) for name in ("name", "status", "current_task", "error")}
        | {"agent_id": row.string("id"), "heartbeat_at": row.moment("heartbeat_at")}
        | {"progress": whole(row, "progress"), "health": exact(row, "health")}
    )
    status = agents.changed_status(event)
    if status is None and data.status == "error" and event.has_changed("error"):
        status = "error"
    type = channels.AGENT_TYPES.get(status)
    if type is not None:
        message = channels.AgentEvent(type=type, channel="agents", data=data, timestamp=event.at)
        return message.model_dump_json(exclude={"omitted"})
    shown = data.model_dump(mode="json")
    heartbeat = channels.HeartbeatData(agent_id=shown.pop("agent_id"), status=shown)
    alive = channels.AgentHeartbeat(channel="agents", data=heartbeat, timestamp=event.at)
    return alive.model_dump_json(exclude={"omitted"})


def mission_on_a_channel(event: Event, row: Row) -> str | None:
    data = channels.MissionData.from_row(
        {name: row.string(name) for name in ("name", "priority", "status", "error")}
        | {"mission_id": row.string("id"), "result": exact(row, "result")}
    )
    types = channels.MISSION_TYPES
    type = channels.type_by_status(event, row, types, "mission_updated", "mission_deleted")
    message = channels.MissionEvent(type=type, channel="missions", data=data, timestamp=event.at)
    return message.model_dump_json(exclude={"omitted"})


def agent_in_the_cloud(event: Event, row: Row) -> str | None:
    state = agents.STATES.get(row.string("status"))
    before = agents.row_before(event)
    if event.operation is Operation.DELETE:
        state = "stopped"
    elif before is not None and agents.STATES.get(before.string("status")) == state:
        if not any(map(event.has_changed, ("name", "current_task", "progress"))):
            return None
    data = cloud.AgentStatusData.from_row(
        {"agentName": row.string("name") or row.string("id"), "state": state}
        | {"currentTask": row.string("current_task"), "progress": whole(row, "progress")}
    )
    message = cloud.AgentStatus(data=data, timestamp=event.at)
    return message.model_dump_json(exclude={"omitted"}, exclude_none=True)


def chat_message(event: Event, row: Row) -> str | None:
    if event.operation is Operation.DELETE:
        return BaseFormat().render(event)
    data = cloud.ChatMessageData.from_row(
        {
            "conversationId": row.string("conversation_id") or "",
            "messageId": row.string("id"),
            "content": row.string("content") or "",
            "sender": row.string("sender") or "",
            "timestamp": row.moment("created_at"),
        }
    )
    return cloud.ChatMessage(data=data, timestamp=event.at).model_dump_json(exclude={"omitted"})


def agent_of_mission_control(event: Event, row: Row) -> str | None:
    status = agents.changed_status(event)
    if status is None:
        return None
    values = {"agentId": row.string("id"), "status": status, "timestamp": event.at}
    payload = mission_control.AgentStatus.from_row(values)
    return mission_control.AgentStatusMessage(payload=payload).model_dump_json()


def session_of_mission_control(event: Event, row: Row) -> str | None:
    if event.operation is Operation.DELETE:
        return None
    if event.former is not None and not any(map(event.has_changed, ("last_message", "id"))):
        return None
    payload = mission_control.SessionActivity.from_row(
        {
            "agentId": row.string("agent_id") or "",
            "sessionId": row.string("id"),
            "lastMessage": row.string("last_message") or "",
            "timestamp": event.at,
        }
    )
    message = mission_control.SessionActivityMessage(payload=payload)
    return message.model_dump_json(exclude={"omitted"})


Printing = Callable[[Event, Row], str | None]

MESSAGES: list[tuple[str, WireFormat, Printing]] = [
    ("agents", CHANNELS, agent_on_a_channel),
    ("missions", CHANNELS, mission_on_a_channel),
    ("agents", CLOUD, agent_in_the_cloud),
    ("messages", CLOUD, chat_message),
    ("agents", MISSION_CONTROL, agent_of_mission_control),
    ("sessions", MISSION_CONTROL, session_of_mission_control),
]


def outcome(render: Callable[[], str | None]) -> str | None:
    """Return what is rendered, or why nothing is."""
    try:
        return render()
    except RowNotShown as error:
        return f"not shown: {error}"


@pytest.mark.parametrize(
    ("channel", "wire_format", "printed"), MESSAGES, ids=[one.__name__ for *_, one in MESSAGES]
)
def test_a_message_is_what_its_model_prints(
    channel: str, wire_format: WireFormat, printed: Printing
) -> None:
    @given(st.none() | rows(channel), st.none() | rows(channel))
    @example({"id": "1", "status": '"away"'}, None)
    @example({"id": "1", "status": '"idle"', "name": '"a\\nb"'}, {"id": "1", "status": '"error"'})
    @example({"status": '"idle"'}, None)
    @example({}, {})
    def compare(row: dict[str, str] | None, former: dict[str, str] | None) -> None:
        if row is None and former is None:
            return
        event = happened(channel, row, former)
        shown = event.row
        assert shown is not None
        rendered = outcome(lambda: wire_format.render(event))
        assert rendered == outcome(lambda: printed(event, shown))

    compare()
