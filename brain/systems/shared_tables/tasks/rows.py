"""The table `tasks`, as several systems show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from brain.errors import RowNotShown
from brain.message.event import Event, Operation
from brain.message.row import Row
from brain.message.timestamps import shown_moment
from brain.message.wire_model import Timestamp, WireModel

CHANNEL = "tasks"

T = TypeVar("T")

Status = Literal["queued", "in_progress", "completed", "failed"]


class TaskData(WireModel):
    """A task as clients see it; always all eight keys."""

    id: str
    status: Status
    progress: int | float | None
    task_id: str
    agent: str | None
    started_at: Timestamp | None
    completed_at: Timestamp | None
    error: str | None


STATUSES = ("queued", "in_progress", "completed", "failed")
SHOWN: dict[str | None, str] = {"running": "in_progress"}
"""How clients see a status that they have another word for."""

Change = Literal["queued", "in_progress", "completed", "failed", "updated", "deleted", "unknown"]


def visible_change(event: Event) -> Change | str | None:
    """
    Return the status that a task turns to, or `updated` or `deleted`; None if clients see nothing.

    A task that is inserted turns to its first status; a status that is null is `unknown`. Nothing
    is to be seen when `running` becomes `in_progress`. Raises `RowNotShown`.
    """
    if event.operation is Operation.DELETE:
        return "deleted"
    if event.row is None:
        return None
    status = shown_status(event.row)
    if event.former is not None and status == shown_status(event.former):
        return None if event.changed_columns() == ["status"] else "updated"
    return "unknown" if status is None else status


def shown_status(row: Row) -> str | None:
    status = row.string("status")
    return SHOWN.get(status, status)


def task_data(row: Row) -> dict[str, Any]:
    """Return `TaskData` for a row, with the digits of its progress. Raises `RowNotShown`."""
    id, status = row.string("id"), shown_status(row)
    if id is None:
        raise RowNotShown("id is missing")
    if status not in STATUSES:
        raise RowNotShown(f"status is none of {', '.join(STATUSES)} and running")
    return {
        "id": id,
        "status": status,
        "progress": column_or_payload(row, Row.number, "progress", "current_step"),
        "task_id": id,
        "agent": column_or_payload(row, Row.string, "agent"),
        "started_at": shown_moment(row.string("started_at")),
        "completed_at": shown_moment(row.string("completed_at")),
        "error": column_or_payload(row, Row.string, "error"),
    }


def column_or_payload(row: Row, read: Callable[[Row, str], T], *names: str) -> T | None:
    """
    Return the first of these columns that the row has; without any, what its payload has.

    Of the payload that is the first of these members which can be read.
    """
    for name in names:
        if name in row:
            return read(row, name)
    payload = row.nested("payload")
    members = (None if payload is None else read(payload, name) for name in names)
    return next((member for member in members if member is not None), None)
