"""Lines that repeat are limited: clients must not be able to fill the disk with them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

from brain.log_events import LogEvent

BETWEEN_LINES_SECONDS = 60.0
# In that time. A client may be able to make up kinds.
MOST_KINDS = 100
# The kind of all lines beyond these.
OTHERS = "(others)"


@dataclass(slots=True)
class Kind:
    """Lines that count as the same."""

    logged_at: float = float("-inf")
    left_out: int = 0
    """Since then."""


class LogLimit:
    """
    Allows a line of each kind once a minute, and lines of a limited number of kinds.

    Any thread may ask.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, most_kinds: int = MOST_KINDS
    ) -> None:
        self._clock = clock
        self._most_kinds = most_kinds
        self._kinds: dict[str, Kind] = {}
        """In the order in which they were logged."""
        # Held again where the end of an object is logged, which may come at any moment.
        self._lock = threading.RLock()

    def take(self, kind: str) -> int | None:
        """
        Count a line; return None if it is to be left out.

        Otherwise return how many lines of its kind were left out since the last one.
        """
        with self._lock:
            return self._take(kind, self._clock())

    def _take(self, kind: str, now: float) -> int | None:
        self._forget(now)
        if kind not in self._kinds and len(self._kinds) >= self._most_kinds - 1:
            kind = OTHERS
        counted = self._kinds.get(kind) or Kind()
        if now - counted.logged_at < BETWEEN_LINES_SECONDS:
            counted.left_out += 1
            return None
        self._kinds.pop(kind, None)
        self._kinds[kind] = Kind(now)
        return counted.left_out

    def _forget(self, now: float) -> None:
        """Forget kinds that may be logged again: first those of which nothing was left out."""
        over = takewhile(
            lambda kind: now - self._kinds[kind].logged_at >= BETWEEN_LINES_SECONDS,
            tuple(self._kinds),
        )
        for kind in over:
            is_full = len(self._kinds) >= self._most_kinds - 1
            if not self._kinds[kind].left_out or (is_full and kind != OTHERS):
                del self._kinds[kind]


class LimitedLog:
    """Logs lines within a `LogLimit`; each says how many of its kind were left out before it."""

    def __init__(
        self,
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        most_kinds: int = MOST_KINDS,
    ) -> None:
        self._logger = logger
        self._limit = LogLimit(clock, most_kinds)

    def log(
        self,
        event: LogEvent,
        kind: str,
        text: str,
        *values: object,
        error: BaseException | None = None,
        **fields: object,
    ) -> None:
        """Log an event, see `LogEvent.log`, unless one of its kind was logged within a minute."""
        left_out = self._limit.take(kind)
        if left_out is not None:
            event.log(self._logger, text, *values, error=error, left_out=left_out, **fields)
