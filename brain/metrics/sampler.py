"""Brings metrics to what the rooms have counted, once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from brain.problems import Problems

PAUSE_SECONDS = 1.0


async def sample_for_ever(samples: Sequence[Callable[[], object]], problems: Problems) -> None:
    """Call each of `samples` once a second; one that fails is a problem, and holds up no other."""
    while True:
        for sample in samples:
            try:
                sample()
            except Exception as error:
                problems.report("metrics", f"cannot be sampled: {error!r}", unexpected=error)
        await asyncio.sleep(PAUSE_SECONDS)
