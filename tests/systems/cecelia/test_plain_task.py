from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brain.errors import RowNotShown
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.json_text import dumps
from brain.message.timestamps import iso_milliseconds
from brain.systems.channels.messages import TASK_TYPES, type_by_status
from brain.systems.channels.wire_format import ChannelsFormat
from brain.systems.shared_tables.tasks.plain_task import plain_task
from brain.systems.shared_tables.tasks.rows import TaskData, task_data, visible_change
from brain.systems.shared_tables.tasks.run_messages import TYPES, Run, RunSchema
from tests.systems.hostile_texts import MOMENTS, NUMBERS, TEXTS, odd_columns, written

HERE = Cursor(7, 8, 9)
AT = datetime(2026, 2, 6, 1, 30, 15, 250_000, tzinfo=UTC)
SCHEMA = RunSchema()

PLAIN = {
    "id": '"task-123"',
    "title": '"a \\"title\\" of\\nlines"',
    "agent": '"dev"',
    "status": '"running"',
    "progress": "5",
    "payload": '{"agent" : "ops", "status" : "failed", "progress" : 7}',
    "started_at": '"2026-02-06T01:30:00.123456+00:00"',
    "completed_at": "null",
    "updated_at": '"2026-02-06T01:30:00+00:00"',
    "error": "null",
}
"""The columns of Brain's own table, each as PostgreSQL writes it."""

STATUSES = (
    *(
        '"queued"',
        '"running"',
        '"in_progress"',
        '"completed"',
        '"failed"',
        '"updated"',
        '"deleted"',
    ),
    *('"Running"', '"\\u0072unning"', '"unknown"'),
)
ODD_ROWS = odd_columns(
    **dict.fromkeys((*PLAIN, "current_step"), TEXTS)
    | {"status": STATUSES, "progress": NUMBERS, "started_at": MOMENTS, "completed_at": MOMENTS}
)


def row_text(odd: dict[str, str]) -> str:
    """Return the JSON of a plain row with some values of another text."""
    return written(PLAIN | odd)


def changed(data: str | None, old: str | None, *omitted: str) -> Event:
    operation = Operation.INSERT if old is None else Operation.UPDATE
    operation = Operation.DELETE if data is None else operation
    key = '["task-123"]'
    return Event(*HERE, AT, "tasks", operation, key, data, old, 300, omitted=omitted)


def outcome(render: Any, event: Event) -> str | None:
    """Return what is rendered, or why nothing is."""
    try:
        text: str | None = render(event)
    except RowNotShown as error:
        return f"not shown: {error}"
    return text


def run_by_columns(event: Event) -> str | None:
    """Return the message with each value of the row read by itself."""
    assert event.row is not None
    change, data = visible_change(event), task_data(event.row)
    if change is None:
        return None
    run = {"type": TYPES.get(change, "run_update"), "data": data}
    omitted = {"omitted": list(event.omitted)} if event.omitted else {}
    return dumps(run | {"timestamp": iso_milliseconds(event.at)} | omitted)


def task_event_by_columns(event: Event) -> str | None:
    assert event.row is not None
    if visible_change(event) is None:
        return None
    type = type_by_status(event, event.row, TASK_TYPES, "task_updated", "task_deleted")
    message = {"type": type, "channel": "tasks", "data": task_data(event.row)}
    omitted = {"omitted": list(event.omitted)} if event.omitted else {}
    return dumps(message | {"timestamp": event.at.timestamp()} | omitted)


@given(
    st.none() | ODD_ROWS,
    st.none() | ODD_ROWS,
    st.sampled_from([(), ("title",), ("error",), ("status",)]),
)
@example({"status": '"in_progress"'}, {"status": '"running"'}, ())
@example({"status": '"in_progress"', "progress": "6"}, {"status": '"running"'}, ())
@example({"status": '"completed"'}, {"status": '"running"'}, ())
@example({"status": ""}, {"status": "null"}, ())
@example({"status": "null"}, {"status": ""}, ())
@example({"progress": "6"}, {}, ())
@example({"error": '"a\\nb"'}, {"status": '"queued"'}, ())
def test_a_spliced_message_is_what_reading_each_column_makes(
    row: dict[str, str] | None, former: dict[str, str] | None, omitted: tuple[str, ...]
) -> None:
    data, old = (None if one is None else row_text(one) for one in (row, former))
    if data is None and old is None:
        return
    event = changed(data, old, *omitted)

    assert outcome(SCHEMA.render, event) == outcome(run_by_columns, event.with_values())
    assert outcome(ChannelsFormat().render, event) == outcome(task_event_by_columns, event)


@given(
    st.text(),
    st.none() | st.text(),
    st.none() | st.text(),
    st.none() | st.datetimes(),
    st.integers(),
    st.sampled_from(["queued", "running", "in_progress", "completed", "failed"]),
    st.datetimes(timezones=st.just(UTC)),
)
def test_a_spliced_message_is_what_the_model_prints(
    id: str,
    agent: str | None,
    error: str | None,
    started_at: datetime | None,
    progress: int,
    status: str,
    at: datetime,
) -> None:
    started_at = None if started_at is None else started_at.replace(tzinfo=UTC)
    values = {"id": id, "agent": agent, "error": error, "status": status, "progress": progress}
    texts = {name: json.dumps(value) for name, value in values.items()}
    texts["started_at"] = dumps(started_at)
    event = changed(row_text(texts), None).with_values(at=at)

    shown = "in_progress" if status == "running" else status
    data = values | {"status": shown, "task_id": id}
    run = Run(
        type=TYPES.get(status, "run_update"),
        data=TaskData.model_validate(data | {"started_at": started_at, "completed_at": None}),
        timestamp=at,
    )
    assert plain_task(event) is not None
    assert SCHEMA.render(event) == run.model_dump_json(exclude={"omitted"})


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"status": '"completed"', "completed_at": '"2026-02-06T01:30:00+00:00"'},
        {"error": '"line\\nline"'},
        {"progress": "1e400"},
        {"payload": "{}", "title": "null", "agent": "null"},
    ],
)
def test_rows_of_the_own_table_are_spliced(odd: dict[str, str]) -> None:
    row = row_text(odd)

    assert plain_task(changed(row, None)) is not None
    assert plain_task(changed(row, row_text({}))) is not None


@pytest.mark.parametrize(
    "odd",
    [
        {"status": '"cancelled"'},
        {"progress": "null"},
        {"progress": '"5"'},
        {"agent": "7"},
        {"error": ""},
        {"error": '"\\ud800"'},
        {"id": "7"},
        {"started_at": "[]"},
        {"payload": "[" * 3000 + "]" * 3000},
    ],
)
def test_rows_of_other_types_are_not_spliced(odd: dict[str, str]) -> None:
    assert plain_task(changed(row_text(odd), None)) is None
