"""
Rows of `tasks` as `run_update`, `run_complete` and `run_failed`.

Source: the protocol of Cecelia Brain, tests/seeds/documents/1-cecelia-brain.md. `run_deleted` and
`run_truncated` are Brain's own; a client that does not know them ignores them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError

from brain.message.base_format import BaseFormat, Text
from brain.message.channel_schema import ChannelSchema
from brain.message.event import Event, Operation
from brain.message.skipped_rows import SkippedRows
from brain.message.wire_model import Timestamp, WireModel
from brain.systems.shared_tables.tasks.rows import (
    CHANNEL,
    TaskData,
    task_data,
    visible_change,
)

RunType = Literal["run_update", "run_complete", "run_failed", "run_deleted"]

TYPES: dict[Any, RunType] = {
    "completed": "run_complete",
    "failed": "run_failed",
    "deleted": "run_deleted",
}


class Run(WireModel):
    """A task was inserted, updated or deleted."""

    type: RunType
    data: TaskData
    timestamp: Timestamp


class RunTruncated(WireModel):
    """All tasks were removed at once."""

    type: Literal["run_truncated"] = "run_truncated"
    data: Text = Text(message="All tasks were removed")
    timestamp: Timestamp


class RunSchema(ChannelSchema):
    """How rows of `tasks` are named and shown."""

    def __init__(self) -> None:
        super().__init__(CHANNEL)
        self._skipped = SkippedRows(BaseFormat.name)

    def render(self, event: Event) -> str | None:
        if event.operation is Operation.TRUNCATE:
            return RunTruncated(timestamp=event.at).model_dump_json()
        change = visible_change(event)
        if change is None:
            return None
        row = event.old if event.data is None else event.data
        type = TYPES.get(change, "run_update")
        try:
            run = Run(type=type, data=task_data(row), timestamp=event.at)
        except ValidationError as error:
            # Only a table that Brain did not create can hold such a row.
            self._skipped.warn(CHANNEL, error)
            return None
        return run.model_dump_json()

    def show_row(self, row: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return task_data(row).model_dump(mode="json")
        except ValidationError as error:
            self._skipped.warn(CHANNEL, error)
            return None

    def superseded_key(self, event: Event) -> str | None:
        """Every `run_update` is superseded by the next; a task's end never is."""
        if event.operation not in (Operation.INSERT, Operation.UPDATE):
            return None
        change = visible_change(event)
        return None if change is None or change in TYPES else f"{event.channel} {event.key}"
