from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.message.base_format import BaseFormat
from brain.message.channel_schema import ChannelSchemas
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.row_messages import Message
from brain.message.snapshot import Snapshot, parts_of
from brain.systems.shared_tables.tasks.run_messages import RunSchema
from tests.message.rows import as_json, optional, reset

AT = datetime(2026, 2, 6, 1, 30, 15, tzinfo=UTC)
PRINTED_AT = "2026-02-06T01:30:15.000Z"

FORMAT = BaseFormat(ChannelSchemas([RunSchema()]))


def rendered(
    operation: Operation,
    data: Any,
    old: Any = None,
    *,
    type: str | None = None,
    channel: str = "orders",
) -> dict[str, Any] | None:
    """Return the message about a change on a channel without a schema of its own."""
    written = as_json(data) if operation is Operation.PUBLISH else optional(data)
    event = Event(
        *Cursor(1, 2, 3), AT, channel, operation, "[1]", written, optional(old), 100, type
    )
    text = FORMAT.render(event)
    return None if text is None else dict(json.loads(text))


@pytest.mark.parametrize(
    ("operation", "data", "old", "type"),
    [
        (Operation.INSERT, {"id": 1}, None, "orders_inserted"),
        (Operation.UPDATE, {"id": 1}, {"id": 2}, "orders_updated"),
        (Operation.DELETE, None, {"id": 1}, "orders_deleted"),
    ],
)
def test_a_row_is_sent_with_its_columns(
    operation: Operation, data: Any, old: Any, type: str
) -> None:
    assert rendered(operation, data, old) == {
        "type": type,
        "data": {"id": 1},
        "timestamp": PRINTED_AT,
    }


def test_a_truncate_is_sent_without_data() -> None:
    message = rendered(Operation.TRUNCATE, None)

    assert message == {"type": "orders_truncated", "data": {}, "timestamp": PRINTED_AT}


def test_a_watch_may_name_the_type_of_its_messages() -> None:
    message = rendered(Operation.INSERT, {"id": 1}, type="order_placed")

    assert message is not None
    assert message["type"] == "order_placed"


@pytest.mark.parametrize("data", [{"a": [1, None]}, [1, 2], "text", 4.5, None])
def test_published_data_is_sent_as_it_is(data: Any) -> None:
    message = rendered(Operation.PUBLISH, data, type="greeting")

    assert message == {"type": "greeting", "data": data, "timestamp": PRINTED_AT}


def test_what_is_published_on_the_channel_tasks_is_no_task() -> None:
    message = rendered(Operation.PUBLISH, {"text": "hello"}, type="note", channel="tasks")

    assert message == {"type": "note", "data": {"text": "hello"}, "timestamp": PRINTED_AT}


@pytest.mark.parametrize("channel", ["orders", "tasks"])
def test_a_reset_says_what_cannot_be_sent(channel: str) -> None:
    assert json.loads(FORMAT.render(reset(channel)) or "") == {
        "type": "reset",
        "data": {"message": "what happened to the channel is not in the log"},
        "timestamp": "2026-02-06T01:30:15.250Z",
    }


def test_a_message_names_the_columns_that_its_row_lacks() -> None:
    event = Event(
        *Cursor(1, 2, 3),
        AT,
        "orders",
        Operation.INSERT,
        "[1]",
        '{"id" : 1}',
        None,
        100,
        omitted=("scan", "notes"),
    )

    assert json.loads(FORMAT.render(event) or "") == {
        "type": "orders_inserted",
        "data": {"id": 1},
        "timestamp": PRINTED_AT,
        "omitted": ["scan", "notes"],
    }


HOSTILE = (
    '{"n" : 12345678901234567890.12, "m" : 1.10, "huge" : 1e400, "zero" : "\\u0000",'
    ' "half" : "\\ud800", "deep" : ' + "[" * 5000 + "]" * 5000 + "}"
)


@pytest.mark.parametrize(
    ("operation", "data", "old", "type"),
    [
        (Operation.INSERT, HOSTILE, None, None),
        (Operation.UPDATE, HOSTILE, "{}", None),
        (Operation.DELETE, None, HOSTILE, None),
        (Operation.PUBLISH, HOSTILE, None, "note"),
    ],
)
def test_a_row_and_what_is_published_are_sent_as_they_are_written(
    operation: Operation, data: str | None, old: str | None, type: str | None
) -> None:
    event = Event(*Cursor(1, 2, 3), AT, "orders", operation, "[1]", data, old, 100, type)

    assert f'"data":{HOSTILE},' in (FORMAT.render(event) or "")


def test_a_row_is_shown_in_a_snapshot_as_it_is_written() -> None:
    (part,) = parts_of(Snapshot({"orders": [HOSTILE]}, Cursor(1, 2)))

    assert f'"rows":[{HOSTILE}]' in (FORMAT.render_part(part, AT) or "")


def test_a_key_is_sent_as_it_is_written() -> None:
    key = '[12345678901234567890.10, "a:b"]'
    event = Event(*Cursor(1, 2, 3), AT, "orders", Operation.UPDATE, key, "{}", "{}", 100)

    assert f'"key":{key}' in (FORMAT.render_leaving(event) or "")


@given(
    st.text(),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
    st.datetimes(timezones=st.just(UTC)),
)
def test_a_message_is_what_its_model_prints(type: str, value: Any, at: datetime) -> None:
    data = as_json(value)
    event = Event(*Cursor(1, 2, 3), at, "notes", Operation.PUBLISH, None, data, None, 100, type)

    text = FORMAT.render(event) or ""
    message = Message(type=type, data=value, timestamp=at)
    assert json.loads(text) == json.loads(message.model_dump_json(exclude={"omitted"}))
    assert f'"data":{data},' in text
