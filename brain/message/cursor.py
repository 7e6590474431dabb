"""A place in the log."""

from __future__ import annotations

from dataclasses import dataclass

END_OF_TICK = 2**63 - 1


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """
    The place after one event: in which tick, and after which event of it.

    It is good as long as the tick is there and has this nonce. A nonce names one history of the
    log, so a restored or failed-over database cannot be mistaken for the one a client knew.
    """

    tick: int
    nonce: int
    event_id: int = END_OF_TICK

    @property
    def ends_tick(self) -> bool:
        return self.event_id == END_OF_TICK

    def __str__(self) -> str:
        return f"{self.tick}.{self.nonce}.{self.event_id}"
