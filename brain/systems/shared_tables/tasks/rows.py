"""The table `tasks`, as several systems show it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from brain.message.event import Event, Operation
from brain.message.wire_model import ColumnTimestamp, WireModel

CHANNEL = "tasks"

Status = Literal["queued", "in_progress", "completed", "failed"]


class TaskData(WireModel):
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


SHOWN: dict[Any, str] = {"running": "in_progress"}
"""How clients see a status that they have another word for."""

Change = Literal["queued", "in_progress", "completed", "failed", "updated", "deleted", "unknown"]


def visible_change(event: Event) -> Change | Any | None:
    """
    Return the status that a task turns to, or `updated` or `deleted`; None if clients see nothing.

    A task that is inserted turns to its first status; a status that is null is `unknown`. Nothing
    is to be seen when `running` becomes `in_progress`.
    """
    if event.operation is Operation.DELETE:
        return "deleted"
    if event.data is None:
        return None  # the row is gone by now, which a later event says
    status = event.data.get("status")
    status = SHOWN.get(status, status)
    if event.operation is Operation.UPDATE:
        old = event.old or {}
        if "status" not in old:
            return "updated"
        if status == SHOWN.get(old["status"], old["status"]):
            return "updated" if len(old) > 1 else None
    return "unknown" if status is None else status


def task_data(row: dict[str, Any] | None) -> TaskData:
    """Return a row as clients see it; raises `ValidationError` for what they have no word for."""
    row = row or {}
    return TaskData.model_validate(
        {
            **{name: row.get(name) for name in TaskData.model_fields},
            "status": SHOWN.get(row.get("status"), row.get("status")),
            "task_id": row.get("id"),
        }
    )
