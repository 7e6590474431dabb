"""Which clients get a heartbeat, and when."""

from __future__ import annotations

from collections.abc import Sequence

from brain.hub.cohort import Cohort
from brain.message.wire_format import WireFormat


class Heartbeats:
    """
    Says which cohorts are due.

    Those of a wire format with an interval are due all at once, each time that it is over; any
    other cohort is due when it was sent nothing for a while.
    """

    def __init__(self) -> None:
        self._due_at: dict[str, float] = {}
        """By the name of a wire format with an interval, when its clients get the next one."""

    def due(self, cohorts: Sequence[Cohort], now: float, quiet_seconds: float) -> list[Cohort]:
        """Return those of all cohorts that are due, in seconds of the hub's clock."""
        formats = {cohort.encoding.wire_format for cohort in cohorts}
        due = {one.name for one in formats if self._is_over(one, now)}
        return [
            cohort
            for cohort in cohorts
            if (
                cohort.sent_at <= now - quiet_seconds
                if cohort.encoding.wire_format.heartbeat_seconds is None
                else cohort.encoding.wire_format.name in due
            )
        ]

    def _is_over(self, wire_format: WireFormat, now: float) -> bool:
        """Return True when the interval of a format is over; the next one begins then."""
        name, interval = wire_format.name, wire_format.heartbeat_seconds
        if interval is None or now < self._due_at.setdefault(name, now + interval):
            return False
        self._due_at[name] = now + interval
        return True
