"""
The wire format of `/ws`: task rows as `run_update`, `run_complete` and `run_failed`.

Source: the protocol of Cecelia Brain, which docs/protocol.md prints in full. `run_deleted` and
`run_truncated` are Brain's own; a client that does not know them passes them over.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
)

from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.times import iso_milliseconds, parse_timestamp
from brain.message.wire_format import frame

CHANNEL = "tasks"

logger = logging.getLogger(__name__)

Status = Literal["queued", "in_progress", "completed", "failed"]
RunType = Literal["run_update", "run_complete", "run_failed", "run_deleted"]

Timestamp = Annotated[
    datetime, PlainSerializer(iso_milliseconds, return_type=str, when_used="json")
]
"""A moment, printed as `2026-02-06T01:30:00.000Z`."""

ColumnTimestamp = Annotated[
    Timestamp | None,
    BeforeValidator(lambda value: parse_timestamp(value) if isinstance(value, str) else value),
]


class WireModel(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_serialization_defaults_required=True
    )


class RunData(WireModel):
    """A task as clients see it; always all eight keys."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: str
    status: Status
    progress: int | float | None
    task_id: str
    agent: str | None
    started_at: ColumnTimestamp
    completed_at: ColumnTimestamp
    error: str | None


class Text(WireModel):
    message: str


class Connected(WireModel):
    """The first message of every connection."""

    type: Literal["connected"] = "connected"
    data: Text = Text(message="Connected to Cecelia Brain")
    timestamp: Timestamp


class Run(WireModel):
    """A task was added, changed or deleted."""

    type: RunType
    data: RunData
    timestamp: Timestamp


class RunTruncated(WireModel):
    """All tasks were removed at once."""

    type: Literal["run_truncated"] = "run_truncated"
    data: Text = Text(message="All tasks were removed")
    timestamp: Timestamp


class Heartbeat(WireModel):
    """There was nothing to tell for a while; the cursor is newer than the last one."""

    type: Literal["heartbeat"] = "heartbeat"
    data: dict[str, Any] = {}
    timestamp: Timestamp


class Reset(WireModel):
    """What the client missed cannot be told to it; `data.message` says why."""

    type: Literal["reset"] = "reset"
    data: Text
    timestamp: Timestamp


class Echo(WireModel):
    """What the client said, sent back to it."""

    type: Literal["echo"] = "echo"
    data: dict[str, Any]
    timestamp: Timestamp


ServerMessage = Annotated[
    Connected | Run | RunTruncated | Echo | Heartbeat | Reset, Field(discriminator="type")
]
"""Everything that `/ws` sends; the last two only to clients that asked for cursors."""

SERVER_MESSAGE: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)


ENDINGS: dict[Any, RunType] = {"completed": "run_complete", "failed": "run_failed"}


class RunsFormat:
    """Speaks with the clients of `/ws`."""

    name = "runs"

    def greet(self, now: datetime, cursor: Cursor) -> str:
        return Connected(timestamp=now).model_dump_json()

    def render(self, event: Event) -> str | None:
        if event.channel != CHANNEL:
            return None
        if event.operation is Operation.TRUNCATE:
            return RunTruncated(timestamp=event.at).model_dump_json()
        try:
            run_type = type_of_run(event)
            if run_type is None:
                return None
            return Run(type=run_type, data=run_data(event), timestamp=event.at).model_dump_json()
        except ValidationError as error:
            # Only a table `tasks` that Brain did not create can hold such a row.
            logger.warning("task %s cannot be told: %s", event.key, error)
            return None

    def answer(self, text: str, now: datetime, cursor: Cursor) -> str:
        """Echo an object as it was written; any other text as its `message`."""
        try:
            is_object = isinstance(orjson.loads(text), dict)
        except orjson.JSONDecodeError:
            is_object = False
        echo = {
            "type": "echo",
            "data": orjson.Fragment(text) if is_object else {"message": text},
            "timestamp": iso_milliseconds(now),
        }
        return orjson.dumps(echo).decode()

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return None

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        return None


class RunsWithCursorFormat:
    """Speaks like `RunsFormat`, with the cursor as a fourth key of every message."""

    name = "runs with cursor"

    def __init__(self, plain: RunsFormat) -> None:
        self._plain = plain

    def greet(self, now: datetime, cursor: Cursor) -> str:
        return with_cursor(self._plain.greet(now, cursor), cursor)

    def render(self, event: Event) -> str | None:
        text = frame(event, self._plain)
        return None if text is None else with_cursor(text, event.cursor)

    def answer(self, text: str, now: datetime, cursor: Cursor) -> str:
        return with_cursor(self._plain.answer(text, now, cursor), cursor)

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return with_cursor(Heartbeat(timestamp=now).model_dump_json(), cursor)

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        message = Reset(data=Text(message=reason), timestamp=now)
        return with_cursor(message.model_dump_json(), cursor)


def with_cursor(text: str, cursor: Cursor) -> str:
    return f'{text[:-1]},"cursor":"{cursor}"}}'


def type_of_run(event: Event) -> RunType | None:
    """Decide from the old and the new row; None if no client could see a difference."""
    if event.operation is Operation.DELETE:
        return "run_deleted"
    if event.data is None:
        return None  # gone meanwhile, which a later event tells
    status = shown_status(event.data.get("status"))
    if event.operation is Operation.UPDATE:
        old = event.old or {}
        if "status" not in old:
            return "run_update"
        if status == shown_status(old["status"]):
            return "run_update" if len(old) > 1 else None
    return ENDINGS.get(status, "run_update")


def shown_status(status: Any) -> Any:
    """A row may say `running`, for which the wire has `in_progress`."""
    return "in_progress" if status == "running" else status


def run_data(event: Event) -> RunData:
    row = event.data if event.data is not None else event.old or {}
    return RunData.model_validate(
        {
            **{name: row.get(name) for name in RunData.model_fields},
            "status": shown_status(row.get("status")),
            "task_id": row.get("id"),
        }
    )
