"""Events for tests."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from brain.message.cursor import Cursor
from brain.message.event import Event, Operation

AT = datetime(2026, 2, 6, 1, 30, 15, 250_000, tzinfo=UTC)
HERE = Cursor(7, 8, 9)

Values = dict[str, Any]


def as_json(value: Any) -> str:
    """Return the JSON text of a value, with the spaces that PostgreSQL writes."""
    text = json.dumps(value, separators=(", ", " : "), ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()  # half of a surrogate pair: escaped


def optional(value: Any) -> str | None:
    """Return the JSON text of a value, where there is one."""
    return None if value is None else as_json(value)


def key_of(row: Values) -> str:
    return as_json([row.get("id")])


def inserted(channel: str, row: Values, at: datetime = AT) -> Event:
    return Event(*HERE, at, channel, Operation.INSERT, key_of(row), as_json(row), None, 300)


def updated(channel: str, row: Values, at: datetime = AT, **former: Any) -> Event:
    """Return an update of a row to `row`; `former` has the former values of columns."""
    data, old = as_json(row), as_json(row | former)
    return Event(*HERE, at, channel, Operation.UPDATE, key_of(row), data, old, 300)


def deleted(channel: str, row: Values, at: datetime = AT) -> Event:
    return Event(*HERE, at, channel, Operation.DELETE, key_of(row), None, as_json(row), 300)


def truncated(channel: str) -> Event:
    return Event(*HERE, AT, channel, Operation.TRUNCATE, None, None, None, 300)


def reset(channel: str) -> Event:
    reason = as_json("what happened to the channel is not in the log")
    return Event(*HERE, AT, channel, Operation.RESET, None, reason, None, 300)


def published(channel: str, type: str, data: Any, at: datetime = AT) -> Event:
    return Event(*HERE, at, channel, Operation.PUBLISH, None, as_json(data), None, 300, type)
