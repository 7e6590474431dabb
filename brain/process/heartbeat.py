"""A sign of life at an interval."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life that an event loop gives: one that hangs gives none."""

    seconds: float
    """The interval."""
    give: Callable[[], None]

    async def run(self) -> None:
        """Give it for ever."""
        while True:
            self.give()
            await asyncio.sleep(self.seconds)
