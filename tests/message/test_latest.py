from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.latest import passing_subject


def event(channel: str, operation: Operation, data: Any, old: Any = None) -> Event:
    key = None if operation in (Operation.TRUNCATE, Operation.PUBLISH) else ["a", 1]
    return Event(Cursor(1, 1, 1), datetime.now(UTC), channel, operation, key, data, old, 10)


RUNNING, DONE = {"status": "running"}, {"status": "completed"}


@pytest.mark.parametrize(
    ("told", "is_passing"),
    [
        (event("tasks", Operation.INSERT, RUNNING), True),
        (event("tasks", Operation.UPDATE, RUNNING, {"progress": 1}), True),
        (event("tasks", Operation.UPDATE, DONE, RUNNING), False),
        (event("tasks", Operation.UPDATE, DONE, {"progress": 1}), True),
        (event("tasks", Operation.INSERT, DONE), False),
        (event("tasks", Operation.DELETE, None, RUNNING), False),
        (event("tasks", Operation.TRUNCATE, None), False),
        (event("tasks", Operation.PUBLISH, {}), False),
        (event("orders", Operation.UPDATE, {}, {}), True),
        (event("orders", Operation.INSERT, {}), False),
        (event("orders", Operation.DELETE, None, {}), False),
        (event("orders", Operation.PUBLISH, {}), False),
    ],
)
def test_what_a_newer_message_makes_superfluous(told: Event, is_passing: bool) -> None:
    assert (passing_subject(told) is not None) == is_passing


def test_rows_and_tables_are_told_apart() -> None:
    first = event("orders", Operation.UPDATE, {}, {})
    other = event("others", Operation.UPDATE, {}, {})
    assert passing_subject(first) != passing_subject(other)
