"""What is refused at the door is logged, so that the operator can tell why a client stays out."""

from __future__ import annotations

import logging

from brain.log_limit import LogLimit
from brain.problems import printable

LONGEST_SHOWN = 200


class Refusals:
    """Warns of each kind of refusal once a minute."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._limit = LogLimit()

    def warn(self, kind: str, text: str, *values: str | None) -> None:
        """Log a text with values of the client, unless its kind was logged within a minute."""
        if self._limit.allows(kind):
            self._logger.warning(text, *map(shown, values))


def shown(value: str | None) -> str:
    """Return a value of a client for a line of the log."""
    return "none" if value is None else repr(printable(value[:LONGEST_SHOWN]))
