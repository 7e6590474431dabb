"""Timestamps as PostgreSQL writes them into jsonb, and as the wire formats print them."""

from __future__ import annotations

from datetime import UTC, datetime


def parse_timestamp(text: str) -> datetime | None:
    """Return the moment that `text` names; None for `infinity` and years beyond four digits."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def iso_milliseconds(moment: datetime) -> str:
    """Return `moment` as `2026-02-06T01:30:00.000Z`."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds") + "Z"
