"""Durations and moments as they are typed."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from brain.errors import UsageError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", re.ASCII)
DURATION = re.compile(rf"(?:{PART.pattern})+", re.ASCII)


def parsed_duration(text: str) -> float:
    """Return the seconds in `90s`, `10m`, `2h`, `1d` or `1h30m`; raises UsageError."""
    seconds = seconds_in(text)
    if not seconds:
        raise UsageError(f"{text!r} is no duration: one is given as 90s, 10m, 2h, 1d or 1h30m")
    return seconds


def seconds_since(text: str, now: datetime) -> float:
    """Return how many seconds a duration has, or how long ago a moment was; raises UsageError."""
    seconds = seconds_in(text)
    if seconds is None:
        seconds = (now - parsed_moment(text)).total_seconds()
    if seconds <= 0:
        raise UsageError(f"{text!r} does not lie in the past")
    return seconds


def seconds_in(text: str) -> float | None:
    if DURATION.fullmatch(text) is None:
        return None
    return sum(float(number) * UNITS[unit] for number, unit in PART.findall(text))


def parsed_moment(text: str) -> datetime:
    """Return an ISO 8601 time, which is local without an offset."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        usage = "it is given as 10m, 2h, 1d, or 2026-02-06T01:30:00Z"
        raise UsageError(f"{text!r} is neither a duration nor a time: {usage}") from None
