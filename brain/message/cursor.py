"""A place in the log."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from brain.errors import CursorLost

END_OF_TICK = 2**63 - 1

TEXT = re.compile(r"(\d{1,19})\.(\d{1,19})\.(\d{1,19})", re.ASCII)


class Cursor(NamedTuple):
    """
    The place after one event: in which tick, and after which event of it.

    It is good as long as the tick is there and has this nonce. A nonce names one history of the
    log, so a restored or failed-over database cannot be mistaken for the one a client knew.
    """

    tick: int
    nonce: int
    event_id: int = END_OF_TICK

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that `str()` made `text` of; raises `CursorLost` for anything else."""
        match = TEXT.fullmatch(text)
        numbers = [int(number) for number in match.groups()] if match else []
        if not numbers or max(numbers) > END_OF_TICK:
            raise CursorLost("this is no cursor")
        return cls(*numbers)

    @property
    def place(self) -> tuple[int, int]:
        """What cursors of one history are ordered by."""
        return self.tick, self.event_id

    @property
    def ends_tick(self) -> bool:
        return self.event_id == END_OF_TICK

    def __str__(self) -> str:
        return f"{self.tick}.{self.nonce}.{self.event_id}"
