from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.message.base_format import BaseFormat
from brain.message.channel_schema import ChannelSchemas
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.row_messages import Message
from brain.systems.shared_tables.tasks.run_messages import RunSchema

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
    event = Event(Cursor(1, 2, 3), AT, channel, operation, [1], data, old, 100, type)
    text = FORMAT.render(event)
    return None if text is None else dict(json.loads(text))


@pytest.mark.parametrize(
    ("operation", "data", "old", "type"),
    [
        (Operation.INSERT, {"id": 1}, None, "orders_inserted"),
        (Operation.UPDATE, {"id": 1}, {"a": 2}, "orders_updated"),
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


def test_a_large_row_that_is_gone_when_it_is_fetched_is_not_sent() -> None:
    assert rendered(Operation.UPDATE, None, {"a": 1}) is None


@given(
    st.text(),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.datetimes(timezones=st.just(UTC)),
)
def test_a_message_is_what_its_model_prints(type: str, value: Any, at: datetime) -> None:
    data = orjson.loads(json.dumps(value))
    event = Event(Cursor(1, 2, 3), at, "notes", Operation.PUBLISH, None, data, None, 100, type)

    assert FORMAT.render(event) == Message(type=type, data=data, timestamp=at).model_dump_json()
