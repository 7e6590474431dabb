from __future__ import annotations

import json
from dataclasses import replace
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

TEXTS = (
    *('"dev"', '""', '"a\\"b\\\\"', '"\\n\\t\\u0001\\u001f"', '"\\u0041\\/"', '"ü€😀\u2028\x7f"'),
    *('"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"</script>"', '"%s {brace} $1"'),
)
NUMBERS = ("0", "-0", "5", "1.10", "-0.0", "1e400", "12345678901234567890.12", "9" * 400, "1E-7")
MOMENTS = (
    *(
        '"2026-02-06T01:30:00+00:00"',
        '"2026-02-06T01:30:00.1+00:00"',
        '"0001-01-01T00:00:00+00:00"',
    ),
    *('"2026-02-06T01:30:00.999999+05:45"', '"2026-02-06T01:30:00"', '"2026-02-06 01:30:00Z"'),
    *('"infinity"', '"-infinity"', '"9999-12-31T23:59:59-01:00"', '"2026-02-30T01:30:00+00:00"'),
    *(
        '"10000-01-01T00:00:00+00:00"',
        '"2026-W06-5"',
        '"0044-03-15T12:00:00+00:00 BC"',
        '"20260206"',
    ),
)
OTHERS = ("null", "true", "false", "[]", "{}", '["a", {"b" : "\\ud800"}]', "[" * 3000 + "]" * 3000)
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
VALUES = st.sampled_from((*TEXTS, *NUMBERS, *MOMENTS, *OTHERS)) | st.text().map(dumps)
MISSING = st.just("")
EACH = {
    "status": st.sampled_from(STATUSES) | VALUES | MISSING,
    "progress": st.sampled_from(NUMBERS) | VALUES | MISSING,
    "started_at": st.sampled_from(MOMENTS) | VALUES | MISSING,
    "completed_at": st.sampled_from(MOMENTS) | VALUES | MISSING,
}
ODD_ROWS = st.fixed_dictionaries(
    {}, optional={name: EACH.get(name, VALUES | MISSING) for name in (*PLAIN, "current_step")}
)


def written(odd: dict[str, str]) -> str:
    """Return the JSON of a plain row with some values of another text; without those of none."""
    texts = PLAIN | odd
    members = ", ".join(f'"{name}" : {text}' for name, text in texts.items() if text)
    return f"{{{members}}}"


def changed(data: str | None, old: str | None, *omitted: str) -> Event:
    operation = Operation.INSERT if old is None else Operation.UPDATE
    operation = Operation.DELETE if data is None else operation
    return Event(
        *(Cursor(7, 8, 9), AT, "tasks", operation, '["task-123"]', data, old, 300),
        omitted=omitted,
    )


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
    data, old = (None if one is None else written(one) for one in (row, former))
    if data is None and old is None:
        return
    event = changed(data, old, *omitted)

    assert outcome(SCHEMA.render, event) == outcome(run_by_columns, replace(event))
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
    event = replace(changed(written(texts), None), at=at)

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
    row = written(odd)

    assert plain_task(changed(row, None)) is not None
    assert plain_task(changed(row, written({}))) is not None


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
    assert plain_task(changed(written(odd), None)) is None
