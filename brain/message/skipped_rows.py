"""Warnings of rows that are not sent, because a wire format cannot show them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from brain.errors import RowNotShown

PAUSE_SECONDS = 60.0

logger = logging.getLogger(__name__)


class SkippedRows:
    """
    Warns of the rows that a wire format skips: of each channel and reason once a minute at most.

    A warning is one line without values of the row, and counts those that were left out before it.
    """

    def __init__(self, wire_format: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._wire_format = wire_format
        self._clock = clock
        self._warned: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def warn(self, channel: str, error: RowNotShown) -> None:
        """Warn that a row of `channel` was skipped because of `error`."""
        reason = str(error)
        now = self._clock()
        if now - self._warned.get((channel, reason), -PAUSE_SECONDS) < PAUSE_SECONDS:
            self._left_out[channel, reason] = self._left_out.get((channel, reason), 0) + 1
            return
        more = self._left_out.pop((channel, reason), 0)
        self._warned[channel, reason] = now
        logger.warning(
            "a row of %s is not sent to clients of %s: %s%s",
            *(channel, self._wire_format, reason),
            f" ({more} more since the last warning)" if more else "",
        )
