from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.message.timestamps import (
    epoch_milliseconds,
    epoch_seconds,
    iso_milliseconds,
    parse_timestamp,
)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("2026-02-06T01:30:00+00:00", "2026-02-06T01:30:00.000Z"),
        ("2026-02-06T09:30:00.123456+08:00", "2026-02-06T01:30:00.123Z"),
        ("2026-02-05T20:00:00.5-05:30", "2026-02-06T01:30:00.500Z"),
        ("2026-02-06T01:30:00", "2026-02-06T01:30:00.000Z"),
    ],
)
def test_what_postgresql_writes_is_printed_in_utc_with_milliseconds(
    text: str, printed: str
) -> None:
    moment = parse_timestamp(text)

    assert moment is not None
    assert iso_milliseconds(moment) == printed


@pytest.mark.parametrize(
    "text",
    [
        *("infinity", "-infinity", "10000-01-01T00:00:00+00:00", "0044-03-15T00:00:00+00:00 BC"),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"),
    ],
)
def test_a_timestamp_that_no_client_could_parse_is_none(text: str) -> None:
    assert parse_timestamp(text) is None


MOMENTS = st.datetimes(
    min_value=datetime(2, 1, 1),
    max_value=datetime(9998, 1, 1),
    timezones=st.integers(-12 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m))),
)


@given(MOMENTS)
def test_printing_moves_no_moment_by_a_millisecond(moment: datetime) -> None:
    printed = datetime.fromisoformat(iso_milliseconds(moment))

    assert timedelta(0) <= moment.astimezone(UTC) - printed < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("text", "seconds", "milliseconds"),
    [
        ("2023-12-19T15:53:54.560000+00:00", 1703001234.56, 1703001234560),
        ("2024-02-05T20:00:00.000999+00:00", 1707163200.000999, 1707163200000),
        ("2024-02-06T04:00:00+08:00", 1707163200.0, 1707163200000),
    ],
)
def test_epoch_timestamps_count_from_1970(text: str, seconds: float, milliseconds: int) -> None:
    moment = datetime.fromisoformat(text)

    assert epoch_seconds(moment) == seconds
    assert epoch_milliseconds(moment) == milliseconds


@given(MOMENTS)
def test_milliseconds_are_cut_off_and_not_rounded(moment: datetime) -> None:
    rest = moment - datetime(1970, 1, 1, tzinfo=UTC)

    assert timedelta(0) <= rest - timedelta(milliseconds=epoch_milliseconds(moment))
    assert rest - timedelta(milliseconds=epoch_milliseconds(moment)) < timedelta(milliseconds=1)
