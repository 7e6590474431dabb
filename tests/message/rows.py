"""Events for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from brain.message.cursor import Cursor
from brain.message.event import Event, Operation

AT = datetime(2026, 2, 6, 1, 30, 15, 250_000, tzinfo=UTC)
HERE = Cursor(7, 8, 9)


def inserted(channel: str, row: dict[str, Any], at: datetime = AT) -> Event:
    return Event(HERE, at, channel, Operation.INSERT, [row.get("id")], row, None, 300)


def updated(channel: str, row: dict[str, Any], at: datetime = AT, **former: Any) -> Event:
    """Return an update of a row to `row`; `former` has the former values of columns."""
    return Event(HERE, at, channel, Operation.UPDATE, [row.get("id")], row, former, 300)


def deleted(channel: str, row: dict[str, Any], at: datetime = AT) -> Event:
    return Event(HERE, at, channel, Operation.DELETE, [row.get("id")], None, row, 300)


def gone(channel: str) -> Event:
    """Return an update of a large row that was gone when it was fetched."""
    return Event(HERE, AT, channel, Operation.UPDATE, ["a"], None, {"status": "idle"}, 300)


def truncated(channel: str) -> Event:
    return Event(HERE, AT, channel, Operation.TRUNCATE, None, None, None, 300)


def published(channel: str, type: str, data: Any, at: datetime = AT) -> Event:
    return Event(HERE, at, channel, Operation.PUBLISH, None, data, None, 300, type)
