from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.message.times import iso_milliseconds, parse_timestamp


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
    "text", ["infinity", "-infinity", "10000-01-01T00:00:00+00:00", "0044-03-15T00:00:00+00:00 BC"]
)
def test_what_no_client_could_parse_is_none(text: str) -> None:
    assert parse_timestamp(text) is None


@given(
    st.datetimes(
        min_value=datetime(2, 1, 1),
        max_value=datetime(9998, 1, 1),
        timezones=st.integers(-12 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m))),
    )
)
def test_no_moment_is_moved_by_a_millisecond(moment: datetime) -> None:
    printed = datetime.fromisoformat(iso_milliseconds(moment))

    assert timedelta(0) <= moment.astimezone(UTC) - printed < timedelta(milliseconds=1)
