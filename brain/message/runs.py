"""
The wire format of `/ws`: task rows as `run_update`, `run_complete` and `run_failed`.

Source: the protocol of Cecelia Brain, which docs/protocol.md prints in full. `run_deleted` and
`run_truncated` are Brain's own; a client that does not know them passes them over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, ConfigDict, ValidationError

from brain.message.acts import Act, Say
from brain.message.changes import Left, message_of, row_of
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.snapshot import Snapshot
from brain.message.times import iso_milliseconds, parse_timestamp
from brain.message.wire_format import SERVICE_RESTART, Welcome
from brain.message.wire_model import Timestamp, WireModel

CHANNEL = "tasks"

logger = logging.getLogger(__name__)

Status = Literal["queued", "in_progress", "completed", "failed"]
RunType = Literal["run_update", "run_complete", "run_failed", "run_deleted"]

ColumnTimestamp = Annotated[
    Timestamp | None,
    BeforeValidator(lambda value: parse_timestamp(value) if isinstance(value, str) else value),
]


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


class Echo(WireModel):
    """What the client said, sent back to it."""

    type: Literal["echo"] = "echo"
    data: dict[str, Any]
    timestamp: Timestamp


ENDINGS: dict[Any, RunType] = {"completed": "run_complete", "failed": "run_failed"}


class RunsFormat:
    """Speaks with the clients of `/ws`."""

    name = "runs"
    pulse_seconds: float | None = None
    silence_seconds: float | None = None
    going_away_code = SERVICE_RESTART

    def greet(self, welcome: Welcome) -> Iterator[str]:
        yield Connected(timestamp=welcome.now).model_dump_json()

    def render(self, event: Event) -> str | None:
        if event.channel != CHANNEL or event.operation is Operation.PUBLISH:
            return message_of(event)
        if event.operation is Operation.TRUNCATE:
            return RunTruncated(timestamp=event.at).model_dump_json()
        try:
            run_type = type_of_run(event)
            if run_type is None:
                return None
            row = event.old if event.data is None else event.data
            return Run(type=run_type, data=run_data(row), timestamp=event.at).model_dump_json()
        except ValidationError as error:
            # Only a table `tasks` that Brain did not create can hold such a row.
            logger.warning("task %s cannot be told: %s", event.key, error)
            return None

    def render_leaving(self, event: Event) -> str | None:
        return Left(data=row_of(event), timestamp=event.at).model_dump_json()

    def hear(self, text: str, now: datetime, cursor: Cursor) -> Sequence[Act]:
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
        return (Say(orjson.dumps(echo).decode()),)

    def confirm(self, act: Act, now: datetime) -> str | None:
        return None

    def reject(self, why: str, now: datetime) -> str | None:
        return None

    def pulse(self, now: datetime, cursor: Cursor) -> str | None:
        return None

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        return None

    def tell_snapshot(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        return iter(())


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


def run_data(row: dict[str, Any] | None) -> RunData:
    """Return a row of `tasks` as clients see it; raises `ValidationError` for a foreign one."""
    row = row or {}
    return RunData.model_validate(
        {
            **{name: row.get(name) for name in RunData.model_fields},
            "status": shown_status(row.get("status")),
            "task_id": row.get("id"),
        }
    )


def told_rows(channel: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in the shape in which messages tell of them."""
    if channel != CHANNEL:
        return rows
    told = []
    for row in rows:
        try:
            told.append(run_data(row).model_dump(mode="json"))
        except ValidationError as error:
            logger.warning("task %s cannot be told: %s", row.get("id"), error)
    return told
