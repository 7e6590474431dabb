from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.errors import RowNotShown
from brain.message.base_format import BaseFormat
from brain.message.channel_schema import ChannelSchemas
from brain.message.commands import Reply
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.wire_format import Welcome
from brain.problems import Problems
from brain.systems.shared_tables.tasks.run_messages import RunSchema
from tests.message.models import SERVER_MESSAGE
from tests.message.rows import as_json, optional, reset

HERE = Cursor(7, 8, 9)
AT = datetime(2026, 2, 6, 1, 30, 15, tzinfo=UTC)

FORMAT = BaseFormat(ChannelSchemas([RunSchema()]), "Connected to Cecelia Brain")

ROW = {
    "id": "task-123",
    "agent": "dev",
    "status": "running",
    "progress": 5,
    "started_at": "2026-02-06T01:30:00+00:00",
    "completed_at": None,
    "error": None,
}


def event(
    operation: Operation,
    data: dict[str, Any] | None = None,
    old: dict[str, Any] | None = None,
    at: datetime = AT,
) -> Event:
    """Return an event of a task; `old` has the former values of what was changed or deleted."""
    before = None if old is None else as_json({**(data or {}), **old})
    return Event(*HERE, at, "tasks", operation, '["task-123"]', optional(data), before, 300)


def changed(old: dict[str, Any], **new: Any) -> Event:
    return event(Operation.UPDATE, ROW | new, old)


def rendered(event: Event) -> dict[str, Any] | None:
    text = FORMAT.render(event)
    if text is None:
        return None
    SERVER_MESSAGE.validate_json(text)
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def echo(sent: str) -> str:
    (command,) = FORMAT.receive(sent, AT, lambda: HERE)
    assert isinstance(command, Reply)
    return command.text


def rendered_type(event: Event) -> str | None:
    message = rendered(event)
    return None if message is None else message["type"]


def test_an_update_is_printed_as_the_protocol_prints_it() -> None:
    text = FORMAT.render(changed({"progress": 4}))

    assert text == json.dumps(
        {
            "type": "run_update",
            "data": {
                "id": "task-123",
                "status": "in_progress",
                "progress": 5,
                "task_id": "task-123",
                "agent": "dev",
                "started_at": "2026-02-06T01:30:00.000Z",
                "completed_at": None,
                "error": None,
            },
            "timestamp": "2026-02-06T01:30:15.000Z",
        },
        separators=(",", ":"),
    )


def test_a_completion_is_printed_as_the_protocol_prints_it() -> None:
    done = {"status": "completed", "progress": 11, "completed_at": "2026-02-06T01:45:00+00:00"}

    text = FORMAT.render(
        event(
            Operation.UPDATE,
            ROW | done,
            {"status": "running", "progress": 5, "completed_at": None},
            at=datetime(2026, 2, 6, 1, 45, tzinfo=UTC),
        )
    )

    assert text == json.dumps(
        {
            "type": "run_complete",
            "data": {
                "id": "task-123",
                "status": "completed",
                "progress": 11,
                "task_id": "task-123",
                "agent": "dev",
                "started_at": "2026-02-06T01:30:00.000Z",
                "completed_at": "2026-02-06T01:45:00.000Z",
                "error": None,
            },
            "timestamp": "2026-02-06T01:45:00.000Z",
        },
        separators=(",", ":"),
    )


def test_a_failure_is_printed_as_the_protocol_prints_it() -> None:
    failure = "Build failed: TypeScript compilation error"

    message = rendered(
        changed({"status": "running", "error": None}, status="failed", progress=7, error=failure)
    )

    assert message == {
        "type": "run_failed",
        "data": {
            "id": "task-123",
            "status": "failed",
            "progress": 7,
            "task_id": "task-123",
            "agent": "dev",
            "started_at": "2026-02-06T01:30:00.000Z",
            "completed_at": None,
            "error": failure,
        },
        "timestamp": "2026-02-06T01:30:15.000Z",
    }


def test_the_greeting_is_printed_as_the_protocol_prints_it() -> None:
    at = datetime(2026, 2, 6, 1, 30, tzinfo=UTC)
    (text,) = FORMAT.greet(Welcome(at, HERE, UUID(int=1), None))

    assert text == (
        '{"type":"connected","data":{"message":"Connected to Cecelia Brain"},'
        '"timestamp":"2026-02-06T01:30:00.000Z"}'
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("queued", "running", "run_update"),
        ("queued", "completed", "run_complete"),
        ("running", "completed", "run_complete"),
        ("in_progress", "failed", "run_failed"),
        ("completed", "failed", "run_failed"),
        ("failed", "completed", "run_complete"),
        ("completed", "running", "run_update"),
        ("running", "in_progress", None),
        ("in_progress", "running", None),
    ],
)
def test_the_type_follows_from_the_old_and_the_new_status(
    old: str, new: str, expected: str | None
) -> None:
    assert rendered_type(changed({"status": old}, status=new)) == expected


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_change_after_the_end_is_not_a_second_ending(status: str) -> None:
    assert rendered_type(changed({"error": "a"}, status=status, error="b")) == "run_update"


@pytest.mark.parametrize(
    ("status", "expected"),
    [("queued", "run_update"), ("completed", "run_complete"), ("failed", "run_failed")],
)
def test_a_new_task_has_the_type_of_its_first_status(status: str, expected: str) -> None:
    assert rendered_type(event(Operation.INSERT, ROW | {"status": status})) == expected


def test_a_task_that_is_renamed_after_its_end_does_not_end_again() -> None:
    renamed = changed({"id": "task-1"}, id="task-2", status="completed")

    assert rendered_type(renamed) == "run_update"


def test_running_becoming_in_progress_is_an_update_if_something_else_changed() -> None:
    assert (
        rendered_type(changed({"status": "running", "progress": 4}, status="in_progress"))
        == "run_update"
    )


def test_a_deletion_has_the_last_state() -> None:
    message = rendered(event(Operation.DELETE, old=ROW))

    assert message is not None
    assert message["type"] == "run_deleted"
    assert message["data"]["id"] == message["data"]["task_id"] == "task-123"
    assert message["data"]["status"] == "in_progress"


def test_a_truncate_is_one_message() -> None:
    assert rendered(
        Event(*Cursor(7, 8, 9), AT, "tasks", Operation.TRUNCATE, None, None, None, 0)
    ) == {
        "type": "run_truncated",
        "data": {"message": "All tasks were removed"},
        "timestamp": "2026-02-06T01:30:15.000Z",
    }


def test_a_reset_is_no_message_about_a_task(caplog: pytest.LogCaptureFixture) -> None:
    message = rendered(reset("tasks"))

    assert message is not None
    assert message["type"] == "reset"
    assert caplog.records == []


def test_a_message_names_the_columns_that_its_row_lacks() -> None:
    row = {name: value for name, value in ROW.items() if name != "error"}
    message = rendered(event(Operation.INSERT, row).with_values(omitted=("error",)))

    assert message is not None
    assert (message["data"]["error"], message["omitted"]) == (None, ["error"])


def test_an_update_of_an_omitted_column_is_an_update() -> None:
    row = {name: value for name, value in ROW.items() if name != "error"}
    happened = event(Operation.UPDATE, row, {}).with_values(omitted=("error",))

    assert rendered_type(happened) == "run_update"
    started = event(Operation.UPDATE, row, {"status": "in_progress"})
    started = started.with_values(omitted=("error",))
    assert rendered_type(started) == "run_update"


@pytest.mark.parametrize("progress", ["12345678901234567890.12", "1.10", "1e400", "-0.0"])
def test_progress_keeps_all_its_digits(progress: str) -> None:
    row = as_json(ROW).replace('"progress" : 5', f'"progress" : {progress}')
    happened = event(Operation.INSERT, ROW).with_values(data=row)

    assert f'"progress":{progress},' in (FORMAT.render(happened) or "")
    assert f'"progress":{progress},' in (RunSchema().show_row(row) or "")


BARE = {"id": "task-123", "status": "running"}


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({}, (None, None, None)),
        ({"agent": "dev", "error": "x", "progress": 7}, ("dev", "x", 7)),
        ({"current_step": 7}, (None, None, 7)),
        ({"error": "x"}, (None, "x", None)),
        ({"payload": {"error": "x"}}, (None, "x", None)),
        ({"progress": "7", "agent": 7}, ("7", None, 7)),
        ({"progress": None, "current_step": 7}, (None, None, None)),
        ({"payload": {"agent": "dev", "error": "x", "progress": 7}}, ("dev", "x", 7)),
        ({"payload": {"current_step": "7.50"}}, (None, None, 7.5)),
        ({"payload": {"agent": "a"}, "agent": None, "error": "x"}, (None, "x", None)),
        ({"payload": {"agent": ["a"], "error": {}, "progress": "half"}}, (None, None, None)),
        ({"payload": {"progress": True, "current_step": 7}}, (None, None, 7)),
        ({"payload": {"progress": None, "current_step": 7}}, (None, None, 7)),
        ({"payload": {"agent": "\ud800", "error": "x"}}, (None, "x", None)),
        ({"payload": "text"}, (None, None, None)),
        ({"payload": [1]}, (None, None, None)),
        ({"payload": None}, (None, None, None)),
    ],
)
def test_columns_that_a_table_lacks_are_members_of_its_payload(
    row: dict[str, Any], shown: tuple[str | None, str | None, float | None]
) -> None:
    message = rendered(event(Operation.INSERT, BARE | row))

    assert message is not None
    data = message["data"]
    assert (data["agent"], data["error"], data["progress"]) == shown


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": None}, "id is missing"),
        ({"id": [1]}, "id is missing"),
        ({"status": {}}, "status is none of queued, in_progress, completed, failed and running"),
    ],
)
def test_a_row_without_an_id_or_a_status_cannot_be_shown(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowNotShown, match=f"^{reason}$"):
        RunSchema().render(event(Operation.INSERT, BARE | row))


@pytest.mark.parametrize(
    ("row", "key"),
    [
        *[({"progress": value}, "progress") for value in ("50%", "", "007", "NaN", True, [7])],
        ({"current_step": True}, "progress"),
        ({"agent": ["dev"]}, "agent"),
        ({"error": {"text": "x"}}, "error"),
        ({"error": "\ud800"}, "error"),
        ({"started_at": [1]}, "started_at"),
        ({"completed_at": True}, "completed_at"),
    ],
)
def test_a_column_of_another_type_is_null_and_hides_no_message(
    row: dict[str, Any], key: str
) -> None:
    message = rendered(event(Operation.INSERT, BARE | row | {"status": "completed"}))

    assert message is not None
    assert (message["type"], message["data"][key]) == ("run_complete", None)


@pytest.mark.parametrize(
    "first",
    [
        changed({"status": "queued"}, status="cancelled"),
        changed({"status": "queued"}, status=None),
        event(Operation.INSERT, data=ROW | {"status": None}),
    ],
    ids=["set to another", "set to null", "inserted as null"],
)
def test_a_row_with_an_unknown_status_cannot_be_shown(first: Event) -> None:
    with pytest.raises(RowNotShown, match=r"^status is none of queued, in_progress, "):
        RunSchema().render(first)


def test_a_numeric_key_is_sent_as_text() -> None:
    message = rendered(changed({"progress": 1}, id=17))

    assert message is not None
    assert message["data"]["id"] == message["data"]["task_id"] == "17"


def test_an_infinite_timestamp_is_sent_as_none() -> None:
    message = rendered(changed({"progress": 1}, started_at="infinity"))

    assert message is not None
    assert message["data"]["started_at"] is None


@pytest.mark.parametrize(
    "sent",
    [
        '{"test": "Hello Brain", "n": 12345678901234567890123}',
        '{"a": 1e400, "b": [-1e400, 1.10]}',
        '{"a": %s}' % ("1" * 5000),
        '{"a": "\\ud800", "\\udfff": "\\u0000"}',
        '{"a": 1, "a": 2}',
    ],
)
def test_an_object_is_echoed_as_it_was_written(sent: str) -> None:
    expected = f'{{"type":"echo","data":{sent},"timestamp":"2026-02-06T01:30:15.000Z"}}'
    assert echo(sent) == expected


@pytest.mark.parametrize(
    "sent", ["hello", "", "42", "[1, 2]", "null", "{", '{"a": NaN}', '{"a": -Infinity}', "[" * 9999]
)
def test_what_is_not_an_object_is_echoed_as_a_message(sent: str) -> None:
    assert json.loads(echo(sent))["data"] == {"message": sent}


@given(st.text())
def test_any_text_is_answered_by_a_valid_echo(sent: str) -> None:
    message = SERVER_MESSAGE.validate_json(echo(sent))

    assert message.type == "echo"


@pytest.mark.parametrize(
    ("happened", "is_superseded"),
    [
        (event(Operation.INSERT, {"status": "running"}), True),
        (event(Operation.UPDATE, {"status": "running"}, {"progress": 1}), True),
        (event(Operation.UPDATE, {"status": "completed"}, {"status": "running"}), False),
        (event(Operation.UPDATE, {"status": "failed"}, {"status": "running"}), False),
        (event(Operation.UPDATE, {"status": "completed"}, {"progress": 1}), True),
        (event(Operation.INSERT, {"status": "completed"}), False),
        (event(Operation.DELETE, None, {"status": "running"}), False),
        (event(Operation.TRUNCATE), False),
        (event(Operation.PUBLISH, {}), False),
    ],
)
def test_a_run_update_is_superseded_by_the_next_and_no_other_message_is(
    happened: Event, is_superseded: bool
) -> None:
    assert (RunSchema().superseded_key(happened) is not None) == is_superseded


def test_an_event_that_clients_do_not_see_supersedes_nothing() -> None:
    assert RunSchema().superseded_key(changed({"status": "in_progress"})) is None


def test_a_message_supersedes_those_of_the_same_task() -> None:
    first, second = changed({"progress": 4}), changed({"progress": 5})
    other = second.with_values(key='["task-124"]')

    keys = [RunSchema().superseded_key(one) for one in (first, second, other)]

    assert keys[0] == keys[1] != keys[2]


def test_a_row_is_shown_in_a_snapshot_as_in_a_message() -> None:
    message = rendered(changed({"progress": 4}))

    assert message is not None
    shown = json.loads(RunSchema().show_row(as_json(ROW)) or "")
    assert list(shown.items()) == list(message["data"].items())


def test_a_row_with_an_unknown_status_is_left_out_of_a_snapshot_and_is_a_problem() -> None:
    problems, schema = Problems(), RunSchema()
    statuses = ("cancelled\nnow", "running", None)
    rows = [as_json(ROW | {"status": status}) for status in statuses]

    shown = ChannelSchemas([schema], problems).show_rows("tasks", [*rows, "[1]"])
    assert shown == [schema.show_row(rows[1])]
    (problem,) = problems.recent()
    assert (problem.address, problem.channel, problem.count) == ("message tasks", "tasks", 3)
    assert "a row is left out of snapshots: " in problem.text
