from __future__ import annotations

import pytest

from brain.errors import RowNotShown
from brain.message.skipped_rows import PAUSE_SECONDS, SkippedRows
from brain.message.wire_model import WireModel


class Model(WireModel):
    a: int
    b: int = 0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(**values: object) -> RowNotShown:
    with pytest.raises(RowNotShown) as caught:
        Model.from_row(values)
    return caught.value


def test_a_warning_names_the_channel_and_the_column_and_no_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    SkippedRows("base").warn("tasks", refused(a="secret\nvalue"))

    assert [record.message for record in caplog.records] == [
        "a row of tasks is not sent to clients of base: a: "
        "Input should be a valid integer, unable to parse string as an integer"
    ]


def test_a_channel_and_reason_are_warned_of_once_a_minute_with_the_number_of_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    skipped = SkippedRows("base", clock)
    for _ in range(1000):
        skipped.warn("tasks", RowNotShown("id is missing"))
    assert len(caplog.records) == 1

    skipped.warn("tasks", RowNotShown("agent should be a string"))
    skipped.warn("agents", RowNotShown("id is missing"))
    assert len(caplog.records) == 3

    clock.now = PAUSE_SECONDS
    skipped.warn("tasks", RowNotShown("id is missing"))
    skipped.warn("tasks", RowNotShown("id is missing"))
    clock.now = 2 * PAUSE_SECONDS
    skipped.warn("tasks", RowNotShown("id is missing"))

    assert [record.message.partition("missing (")[2] for record in caplog.records[3:]] == [
        "999 more since the last warning)",
        "1 more since the last warning)",
    ]
