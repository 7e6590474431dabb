"""
What a client that subscribes to channels is told of an event.

Rows of `tasks`, `missions` and `agents` are told with the types and the keys of what
`brain.client.events` publishes, and further keys; all other rows as on any channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, PlainSerializer

from brain.message import agents, runs
from brain.message.changes import Row, row_now, row_of, type_and_data
from brain.message.event import Event, Operation
from brain.message.times import epoch_seconds
from brain.message.wire_model import WireModel

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
AGENT_TYPES: Mapping[agents.Shown, AgentType] = {
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
    heartbeat_at: runs.ColumnTimestamp


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
    """A task was added, changed or deleted."""

    type: TaskType
    data: runs.RunData


class MissionEvent(ChannelEvent):
    """A mission was added, changed or deleted."""

    type: MissionType
    data: MissionData


class AgentEvent(ChannelEvent):
    """An agent came, stopped or failed; or it was deleted, which is told as stopped."""

    type: AgentType
    data: AgentData


class AgentHeartbeat(ChannelEvent):
    """An agent is shown as before, and something else of it has changed."""

    type: Literal["agent_heartbeat"] = "agent_heartbeat"
    data: HeartbeatData


class LeftEvent(ChannelEvent):
    """A row does not match the filter any more with which the client subscribed."""

    type: Literal["left"] = "left"
    data: Row


def channel_event(event: Event) -> ChannelEvent | None:
    """
    Return what is told of `event`; None if it is not.

    Raises pydantic's `ValidationError` for a row that only a table of others can hold.
    """
    row = row_now(event)
    if event.type is None and row is not None:
        match event.channel:
            case runs.CHANNEL:
                return task_event(event, row)
            case "missions":
                return mission_event(event, row)
            case agents.CHANNEL:
                return agent_event(event, row)
    told = type_and_data(event)
    if told is None:
        return None
    type, data = told
    return ChannelEvent(type=type, channel=event.channel, data=data, timestamp=event.at)


def left_event(event: Event) -> LeftEvent:
    """Return what is told of a row that leaves a filter."""
    return LeftEvent(channel=event.channel, data=row_of(event), timestamp=event.at)


def task_event(event: Event, row: dict[str, Any]) -> TaskEvent | None:
    if runs.type_of_run(event) is None:
        return None
    type = type_by_status(event, TASK_TYPES, "task_updated", "task_deleted")
    return TaskEvent(type=type, channel=event.channel, data=runs.run_data(row), timestamp=event.at)


def mission_event(event: Event, row: dict[str, Any]) -> MissionEvent:
    type = type_by_status(event, MISSION_TYPES, "mission_updated", "mission_deleted")
    data = MissionData.model_validate(fields(MissionData, "mission_id", row))
    return MissionEvent(type=type, channel=event.channel, data=data, timestamp=event.at)


def agent_event(event: Event, row: dict[str, Any]) -> AgentEvent | AgentHeartbeat:
    data = AgentData.model_validate(fields(AgentData, "agent_id", row))
    turn = agents.turn_of(event)
    if turn is None and data.status == "error" and "error" in (event.old or {}):
        turn = "error"  # another one
    if turn is None:
        rest = data.model_dump(mode="json", exclude={"agent_id"})
        return AgentHeartbeat(
            channel=event.channel,
            data=HeartbeatData(agent_id=data.agent_id, status=rest),
            timestamp=event.at,
        )
    return AgentEvent(type=AGENT_TYPES[turn], channel=event.channel, data=data, timestamp=event.at)


def fields(model: type[WireModel], key: str, row: dict[str, Any]) -> dict[str, Any]:
    return {**{name: row.get(name) for name in model.model_fields}, key: row.get("id")}


def type_by_status(event: Event, types: Mapping[Any, T], updated: T, deleted: T) -> T:
    """Decide by the status that a row is born with or turns to; any other change is `updated`."""
    if event.operation is Operation.DELETE:
        return deleted
    type = types.get(event.data.get("status"), updated)
    if event.operation is Operation.UPDATE:
        old = event.old or {}
        if "status" not in old or types.get(old["status"]) == type:
            return updated
    return type
