"""
Rows of `tasks` as `run_update`, `run_complete` and `run_failed`.

Source: the protocol of Cecelia Brain, tests/seeds/documents/1-cecelia-brain.md. `run_deleted` and
`run_truncated` are Brain's own; a client that does not know them ignores them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from brain.errors import RowNotShown
from brain.message.base_format import Text
from brain.message.channel_schema import ChannelSchema
from brain.message.event import Event, Operation
from brain.message.json_text import dumps
from brain.message.row import Row
from brain.message.row_messages import omitted
from brain.message.timestamps import iso_milliseconds
from brain.message.wire_model import Timestamp, WireModel
from brain.systems.shared_tables.tasks.plain_task import plain_task
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
    omitted: list[str] = Field(default_factory=list)
    """The columns that the row lacks, if there are any: too large, or unreadable."""


class RunTruncated(WireModel):
    """All tasks were removed at once."""

    type: Literal["run_truncated"] = "run_truncated"
    data: Text = Text(message="All tasks were removed")
    timestamp: Timestamp


class RunSchema(ChannelSchema):
    """How rows of `tasks` are named and shown."""

    models = (Run, RunTruncated)

    def __init__(self) -> None:
        super().__init__(CHANNEL)

    def render(self, event: Event) -> str | None:
        """Return a `Run` or `RunTruncated`; without the models, which round numbers."""
        task = plain_task(event)
        if task is not None:
            type = TYPES.get(task.status, "run_update") if task.turns else "run_update"
            at = iso_milliseconds(event.at)
            return f'{{"type":"{type}","data":{task.data},"timestamp":"{at}"}}'
        if event.operation is Operation.TRUNCATE:
            return RunTruncated(timestamp=event.at).model_dump_json()
        if event.row is None:
            return None
        change, data = visible_change(event), task_data(event.row)
        if change is None:
            return None
        run = {"type": TYPES.get(change, "run_update"), "data": data}
        return dumps(run | {"timestamp": iso_milliseconds(event.at)} | omitted(event))

    def show_row(self, row: str) -> str | None:
        task = Row(row)
        try:
            return dumps(task_data(task))
        except RowNotShown as error:
            raise RowNotShown(f"{task.text('id')}: {error}") from error

    def superseded_key(self, event: Event) -> str | None:
        """Every `run_update` is superseded by the next; a task's end never is."""
        if event.operation not in (Operation.INSERT, Operation.UPDATE):
            return None
        try:
            change = visible_change(event)
        except RowNotShown:
            return None
        return None if change is None or change in TYPES else f"{event.channel} {event.key}"
