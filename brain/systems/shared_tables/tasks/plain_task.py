"""
Changes of tasks with the columns and types of the table that Brain creates, spliced into messages.

A change that comes alone finds nothing of its code in the processor's caches: to read the row
column by column takes five times as long as to read it in one call. All other rows are read by
`rows`; what both show of a row is the same, byte for byte.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from brain.message.event import Event, Operation
from brain.message.json_text import dumps
from brain.message.timestamps import shown_moment
from brain.systems.shared_tables.tasks.rows import SHOWN, STATUSES

SHOWN_STATUSES = {status: SHOWN.get(status, status) for status in (*STATUSES, "running")}
"""How clients see a status that the table may have."""


class Columns(msgspec.Struct, gc=False):
    """A row that lacks one of these, or has another type, is not decoded."""

    id: str
    status: str
    progress: msgspec.Raw
    agent: str | None
    started_at: str | None
    completed_at: str | None
    error: str | None


class Status(msgspec.Struct, gc=False):
    """What of the former row decides about a message."""

    status: str


decode_columns = msgspec.json.Decoder(Columns).decode
decode_status = msgspec.json.Decoder(Status).decode


class PlainTask(NamedTuple):
    """A task after an event by which clients see something change."""

    data: str
    """`TaskData` as JSON."""
    status: str
    """As clients see it."""
    turns: bool
    """True if it has turned to this status."""


def plain_task(event: Event) -> PlainTask | None:
    """Return the task that was inserted or updated; None: `rows` has to look at it."""
    operation, data, old = event.operation, event.data, event.old
    if data is None or event.omitted:
        return None
    try:
        row = decode_columns(data)
        if operation is Operation.INSERT and old is None:
            former = None
        elif operation is Operation.UPDATE and old is not None:
            former = decode_status(old).status
        else:
            return None
    except (msgspec.DecodeError, RecursionError):
        return None
    status, progress = SHOWN_STATUSES.get(row.status), str(row.progress, "utf-8")
    if status is None or progress[0] not in "-0123456789":
        return None
    turns = former != row.status
    if turns and former is not None and SHOWN_STATUSES.get(former) == status:
        return None  # to clients only a change of other columns is one
    text = quoted if "\\" in data else as_written
    id = text(row.id)
    return PlainTask(
        f'{{"id":{id},"status":"{status}","progress":{progress},"task_id":{id},'
        f'"agent":{text(row.agent)},"started_at":{as_written(shown_moment(row.started_at))},'
        f'"completed_at":{as_written(shown_moment(row.completed_at))},"error":{text(row.error)}}}',
        status,
        turns,
    )


def as_written(text: str | None) -> str:
    """Return the JSON of a text that has nothing to escape."""
    return "null" if text is None else f'"{text}"'


def quoted(text: str | None) -> str:
    return "null" if text is None else dumps(text)
