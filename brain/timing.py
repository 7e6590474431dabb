"""How long something takes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")
NoteSeconds = Callable[[float], None]
"""Called with the seconds that something has taken, whether it succeeds or fails."""


def ignore(_: float) -> None:
    """Note nothing."""


async def timed(work: Awaitable[Result], note: NoteSeconds) -> Result:
    """Await `work`, and note how long that takes."""
    began_at = time.perf_counter()
    try:
        return await work
    finally:
        note(time.perf_counter() - began_at)
