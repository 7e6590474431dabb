"""
The messages for clients that subscribe to channels.

Rows of `tasks`, `missions` and `agents` have the types and the keys of what
`brain.systems.channels.publishing` publishes, and further keys; other rows are as on any channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import ConfigDict, Field, PlainSerializer

from brain.message.event import Event, Operation
from brain.message.row import Row
from brain.message.row_messages import RowReference, omitted, row_reference, type_and_data
from brain.message.timestamps import epoch_seconds, shown_moment
from brain.message.wire_model import Timestamp, WireModel
from brain.systems.shared_tables.agents import rows as agents
from brain.systems.shared_tables.tasks import rows as tasks
from brain.systems.shared_tables.tasks.plain_task import plain_task

EpochSeconds = Annotated[
    datetime, PlainSerializer(epoch_seconds, return_type=float, when_used="json")
]
"""A moment, printed as `1703001234.56`."""

TaskType = Literal[
    "task_queued", "task_started", "task_completed", "task_failed", "task_updated", "task_deleted"
]
MissionType = Literal[
    "mission_created",
    "mission_started",
    "mission_completed",
    "mission_failed",
    "mission_updated",
    "mission_deleted",
]
AgentType = Literal["agent_started", "agent_stopped", "agent_error"]
T = TypeVar("T", TaskType, MissionType)

TASK_TYPES: Mapping[Any, TaskType] = {
    "queued": "task_queued",
    "running": "task_started",
    "in_progress": "task_started",
    "completed": "task_completed",
    "failed": "task_failed",
}
MISSION_TYPES: Mapping[Any, MissionType] = {
    "created": "mission_created",
    "started": "mission_started",
    "completed": "mission_completed",
    "failed": "mission_failed",
}
AGENT_TYPES: Mapping[Any, AgentType] = {
    "online": "agent_started",
    "offline": "agent_stopped",
    "error": "agent_error",
}


class MissionData(WireModel):
    """A row of `missions`."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    mission_id: str
    name: str | None
    priority: str | None
    status: str | None
    result: Any
    error: str | None


class AgentData(WireModel):
    """A row of `agents`."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    agent_id: str
    name: str | None
    status: str | None
    current_task: str | None
    progress: int | float | None
    error: str | None
    health: Any
    heartbeat_at: Timestamp | None


class HeartbeatData(WireModel):
    """A row of `agents`; `status` is all the rest of it."""

    agent_id: str
    status: dict[str, Any]


class ChannelEvent(WireModel):
    """Something was published on a channel, or happened to a table."""

    type: str
    channel: str
    data: Any
    timestamp: EpochSeconds
    omitted: list[str] = Field(default_factory=list)
    """The columns that `data` lacks, if there are any: too large, or unreadable."""


class BroadcastEvent(WireModel):
    """Something was published to every client, whatever it has subscribed to."""

    type: str
    data: Any
    timestamp: EpochSeconds


class TaskEvent(ChannelEvent):
    """A task was inserted, updated or deleted."""

    type: TaskType
    data: tasks.TaskData


class MissionEvent(ChannelEvent):
    """A mission was inserted, updated or deleted."""

    type: MissionType
    data: MissionData


class AgentEvent(ChannelEvent):
    """An agent started, stopped or failed; a deleted one is shown as stopped."""

    type: AgentType
    data: AgentData


class AgentHeartbeat(ChannelEvent):
    """A column of an agent other than its status changed."""

    type: Literal["agent_heartbeat"] = "agent_heartbeat"
    data: HeartbeatData


class ResetEvent(ChannelEvent):
    """What happened to the channel cannot be sent: load its state again."""

    type: Literal["reset"] = "reset"


class LeftEvent(ChannelEvent):
    """A row no longer matches the filter of a subscription."""

    type: Literal["left"] = "left"
    data: RowReference


def channel_event(event: Event) -> dict[str, Any] | None:
    """
    Return the `ChannelEvent` for `event`, for `dumps`; None if there is none.

    Raises `RowNotShown` for a row with values that Brain's own tables refuse.
    """
    if event.operation is Operation.RESET:
        return message(event, "reset", {"message": orjson.Fragment(event.data or "null")})
    if event.type is None and event.row is not None:
        match event.channel:
            case tasks.CHANNEL:
                return task_event(event, event.row)
            case "missions":
                return mission_event(event, event.row)
            case agents.CHANNEL:
                return agent_event(event, event.row)
    found = type_and_data(event)
    return None if found is None else message(event, found[0], orjson.Fragment(found[1]))


def left_event(event: Event) -> dict[str, Any]:
    """Return the `LeftEvent` for a row that leaves a filter, for `dumps`."""
    return message(event, "left", row_reference(event))


def message(event: Event, type: str, data: Any) -> dict[str, Any]:
    timestamp = epoch_seconds(event.at)
    envelope = {"type": type, "channel": event.channel, "data": data, "timestamp": timestamp}
    return envelope | omitted(event) if event.omitted else envelope


def task_event(event: Event, row: Row) -> dict[str, Any] | None:
    task = plain_task(event)
    if task is not None:
        type = TASK_TYPES[task.status] if task.turns else "task_updated"
        return message(event, type, orjson.Fragment(task.data))
    if tasks.visible_change(event) is None:
        return None
    type = type_by_status(event, row, TASK_TYPES, "task_updated", "task_deleted")
    return message(event, type, tasks.task_data(row))


def mission_event(event: Event, row: Row) -> dict[str, Any]:
    type = type_by_status(event, row, MISSION_TYPES, "mission_updated", "mission_deleted")
    data = {
        "mission_id": row.string("id"),
        "name": row.string("name"),
        "priority": row.string("priority"),
        "status": row.string("status"),
        "result": row.exact("result"),
        "error": row.string("error"),
    }
    MissionData.check_row(data)
    return message(event, type, data)


def agent_event(event: Event, row: Row) -> dict[str, Any]:
    data = {
        "agent_id": row.string("id"),
        "name": row.string("name"),
        "status": row.string("status"),
        "current_task": row.string("current_task"),
        "progress": row.number("progress"),
        "error": row.string("error"),
        "health": row.exact("health"),
        "heartbeat_at": shown_moment(row.string("heartbeat_at")),
    }
    AgentData.check_row(data)
    status = agents.changed_status(event)
    if status is None and data["status"] == "error" and event.has_changed("error"):
        status = "error"  # another one
    type = AGENT_TYPES.get(status)
    if type is None:
        id = data.pop("agent_id")
        return message(event, "agent_heartbeat", {"agent_id": id, "status": data})
    return message(event, type, data)


def type_by_status(event: Event, row: Row, types: Mapping[Any, T], updated: T, deleted: T) -> T:
    """Return the type for the status that a row turns to; any other change is `updated`."""
    if event.operation is Operation.DELETE:
        return deleted
    type = types.get(row.string("status"), updated)
    if event.former is not None and types.get(event.former.string("status")) == type:
        return updated
    return type
