from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from brain.message.cursor import Cursor
from brain.message.resumable import PART_ROWS, SERVER_MESSAGE, WithCursorFormat
from brain.message.runs import RunsFormat
from brain.message.snapshot import Snapshot

AT = datetime(2026, 2, 6, 1, 30, 15, tzinfo=UTC)
CURSOR = Cursor(7, 8)
TASK = {"id": "a", "status": "running", "progress": 1, "agent": None, "error": None}


def parts(tables: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the messages that tell a snapshot."""
    texts = list(WithCursorFormat(RunsFormat()).tell_snapshot(Snapshot(tables, CURSOR), AT))
    for text in texts:
        message = json.loads(text)
        del message["cursor"]
        SERVER_MESSAGE.validate_python(message)
    return [json.loads(text) for text in texts]


def test_a_task_has_the_shape_in_which_messages_tell_of_it() -> None:
    (message,) = parts({"tasks": [TASK]})

    assert list(message) == ["type", "data", "timestamp", "cursor"]
    assert message["type"] == "snapshot"
    assert message["data"] == {
        "channel": "tasks",
        "rows": [
            {
                "id": "a",
                "status": "in_progress",
                "progress": 1,
                "task_id": "a",
                "agent": None,
                "started_at": None,
                "completed_at": None,
                "error": None,
            }
        ],
        "more": False,
    }
    assert message["cursor"] == str(CURSOR)


def test_the_rows_of_other_tables_are_told_as_they_are() -> None:
    (message,) = parts({"orders": [{"id": 1, "paid": True}]})

    assert message["data"]["rows"] == [{"id": 1, "paid": True}]


def test_only_the_last_of_several_messages_has_the_cursor() -> None:
    orders = [{"id": number} for number in range(PART_ROWS + 1)]
    messages = parts({"orders": orders, "empty": []})

    assert [len(message["data"]["rows"]) for message in messages] == [PART_ROWS, 1, 0]
    assert [message["data"]["channel"] for message in messages] == ["orders", "orders", "empty"]
    assert [message["data"]["more"] for message in messages] == [True, True, False]
    assert [message["cursor"] for message in messages] == [None, None, str(CURSOR)]


def test_a_snapshot_of_nothing_is_told_too() -> None:
    (message,) = parts({})

    assert message["data"]["rows"] == []
    assert message["cursor"] == str(CURSOR)


def test_a_row_that_the_wire_has_no_word_for_is_left_out() -> None:
    (message,) = parts({"tasks": [TASK, TASK | {"id": "b", "status": "cancelled"}]})

    assert [row["id"] for row in message["data"]["rows"]] == ["a"]
