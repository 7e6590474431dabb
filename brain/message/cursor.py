"""A place in the log."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple, Self

from brain.errors import CursorLost

END_OF_TICK = 2**63 - 1

TEXT = re.compile(r"(\d{1,19})\.(\d{1,19})\.(\d{1,19})", re.ASCII)


class Cursor(NamedTuple):
    """
    The place after one event: its tick, and its id.

    It is valid as long as the log has the tick with this nonce. A nonce identifies one history of
    the log, so a restored or failed-over database is not mistaken for the one that a client knew.
    """

    tick: int
    nonce: int
    event_id: int = END_OF_TICK

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that `str()` printed; raises `CursorLost` for any other text."""
        match = TEXT.fullmatch(text)
        numbers = [int(number) for number in match.groups()] if match else []
        if not numbers or max(numbers) > END_OF_TICK:
            raise CursorLost("the cursor is malformed")
        return cls(*numbers)

    @property
    def place(self) -> tuple[int, int]:
        """The order of cursors of one history."""
        return self.tick, self.event_id

    @property
    def ends_tick(self) -> bool:
        return self.event_id == END_OF_TICK

    def __str__(self) -> str:
        return f"{self.tick}.{self.nonce}.{self.event_id}"


class LogStart(NamedTuple):
    """A place in the log to begin at, and since when everything that has happened follows it."""

    cursor: Cursor
    at: datetime
