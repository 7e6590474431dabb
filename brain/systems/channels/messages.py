"""
The messages for clients that subscribe to channels.

Rows of `tasks`, `missions` and `agents` have the types and the keys of what
`brain.systems.channels.publishing` publishes, and further keys; other rows are as on any channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, PlainSerializer

from brain.message.event import Event, Operation
from brain.message.row_messages import RowReference, row_after, row_reference, type_and_data
from brain.message.timestamps import epoch_seconds
from brain.message.wire_model import ColumnTimestamp, WireModel
from brain.systems.shared_tables.agents import rows as agents
from brain.systems.shared_tables.tasks import rows as tasks

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
    heartbeat_at: ColumnTimestamp


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


class LeftEvent(ChannelEvent):
    """A row no longer matches the filter of a subscription."""

    type: Literal["left"] = "left"
    data: RowReference


def channel_event(event: Event) -> ChannelEvent | None:
    """
    Return the message for `event`; None if there is none.

    Raises pydantic's `ValidationError` for a row with values that Brain's own tables refuse.
    """
    row = row_after(event)
    if event.type is None and row is not None:
        match event.channel:
            case tasks.CHANNEL:
                return task_event(event, row)
            case "missions":
                return mission_event(event, row)
            case agents.CHANNEL:
                return agent_event(event, row)
    found = type_and_data(event)
    if found is None:
        return None
    type, data = found
    return ChannelEvent(type=type, channel=event.channel, data=data, timestamp=event.at)


def left_event(event: Event) -> LeftEvent:
    """Return the message for a row that leaves a filter."""
    return LeftEvent(channel=event.channel, data=row_reference(event), timestamp=event.at)


def task_event(event: Event, row: dict[str, Any]) -> TaskEvent | None:
    if tasks.visible_change(event) is None:
        return None
    type = type_by_status(event, TASK_TYPES, "task_updated", "task_deleted")
    return TaskEvent(
        type=type, channel=event.channel, data=tasks.task_data(row), timestamp=event.at
    )


def mission_event(event: Event, row: dict[str, Any]) -> MissionEvent:
    type = type_by_status(event, MISSION_TYPES, "mission_updated", "mission_deleted")
    data = MissionData.model_validate(fields(MissionData, "mission_id", row))
    return MissionEvent(type=type, channel=event.channel, data=data, timestamp=event.at)


def agent_event(event: Event, row: dict[str, Any]) -> AgentEvent | AgentHeartbeat:
    data = AgentData.model_validate(fields(AgentData, "agent_id", row))
    status = agents.changed_status(event)
    if status is None and data.status == "error" and "error" in (event.old or {}):
        status = "error"  # another one
    type = AGENT_TYPES.get(status)
    if type is None:
        rest = data.model_dump(mode="json", exclude={"agent_id"})
        return AgentHeartbeat(
            channel=event.channel,
            data=HeartbeatData(agent_id=data.agent_id, status=rest),
            timestamp=event.at,
        )
    return AgentEvent(type=type, channel=event.channel, data=data, timestamp=event.at)


def fields(model: type[WireModel], key: str, row: dict[str, Any]) -> dict[str, Any]:
    return {**{name: row.get(name) for name in model.model_fields}, key: row.get("id")}


def type_by_status(event: Event, types: Mapping[Any, T], updated: T, deleted: T) -> T:
    """Return the type for the status that a row turns to; any other change is `updated`."""
    if event.operation is Operation.DELETE:
        return deleted
    type = types.get(event.data.get("status"), updated)
    if event.operation is Operation.UPDATE:
        old = event.old or {}
        if "status" not in old or types.get(old["status"]) == type:
            return updated
    return type
