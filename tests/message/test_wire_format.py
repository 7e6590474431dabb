from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.runs import RunsFormat
from brain.message.wire_format import frame


class CountingFormat(RunsFormat):
    name = "counting"
    renderings = 0

    def render(self, event: Event) -> str | None:
        self.renderings += 1
        return super().render(event)


def test_an_event_is_rendered_once_per_format_even_if_it_is_not_told() -> None:
    counting = CountingFormat()
    untold = Event(
        Cursor(1, 1, 1), datetime.now(UTC), "tasks", Operation.INSERT, [1], None, None, 10
    )

    assert frame(untold, counting) is None
    assert frame(untold, counting) is None
    assert counting.renderings == 1


class FailingFormat(RunsFormat):
    name = "failing"

    def render(self, event: Event) -> str | None:
        raise RuntimeError("a mistake")


def test_an_event_that_cannot_be_rendered_is_told_to_nobody_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    event = Event(Cursor(7, 1, 1), datetime.now(UTC), "tasks", Operation.INSERT, [1], {}, None, 10)

    assert frame(event, FailingFormat()) is None
    assert frame(event, FailingFormat()) is None
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "a mistake" in str(record.exc_info)
