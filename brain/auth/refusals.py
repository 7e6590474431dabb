"""What is refused at the door is logged, so that the operator can tell why a client stays out."""

from __future__ import annotations

import logging
import time

from brain.problems import printable

# Clients must not be able to fill the disk with warnings: one per reason in this time, and not more
# than this many altogether.
BETWEEN_WARNINGS_SECONDS = 60.0
MOST_WARNINGS = 100
LONGEST_SHOWN = 200


class Refusals:
    """Warns of each kind of refusal once a minute."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._warned_at: dict[str, float] = {}
        """By `time.monotonic()`, the oldest first."""

    def warn(self, kind: str, text: str, *values: str | None) -> None:
        """Log a text with values of the client, unless its kind was logged within a minute."""
        now = time.monotonic()
        recent = {k: at for k, at in self._warned_at.items() if at > now - BETWEEN_WARNINGS_SECONDS}
        self._warned_at = recent
        if kind in recent or len(recent) >= MOST_WARNINGS:
            return
        recent[kind] = now
        self._logger.warning(text, *map(shown, values))


def shown(value: str | None) -> str:
    """Return a value of a client for a line of the log."""
    return "none" if value is None else repr(printable(value[:LONGEST_SHOWN]))
