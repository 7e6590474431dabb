"""Timestamps as PostgreSQL writes them into JSON, and as the wire formats print them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_timestamp(text: str) -> datetime | None:
    """Return the moment of `text` in UTC; None for `infinity` and years beyond four digits."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is UTC:
            return moment
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def shown_moment(text: str | None) -> str | None:
    """Return a timestamp as clients read it; None for one that they cannot read."""
    moment = None if text is None else parse_timestamp(text)
    return None if moment is None else iso_milliseconds(moment)


def iso_milliseconds(moment: datetime) -> str:
    """Return `moment` as `2026-02-06T01:30:00.000Z`."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    # For a change that comes alone, `isoformat` takes twice as long, and an f-string longer, too.
    return "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ" % (  # noqa: UP031
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        moment.microsecond // 1000,
    )


def epoch_seconds(moment: datetime) -> float:
    """Return `moment` as `1703001234.56`, to the microsecond."""
    return (moment - EPOCH).total_seconds()


def epoch_milliseconds(moment: datetime) -> int:
    """Return `moment` as `1707163200000`, cut off to the millisecond."""
    return (moment - EPOCH) // timedelta(milliseconds=1)
