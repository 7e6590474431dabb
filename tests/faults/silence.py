"""Scenarios of clients that go silent without a close, idle or under load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from tests.faults.crowd import Crowd, crowd
from tests.faults.figures import Figure, Findings
from tests.faults.link import link
from tests.faults.load import CHANNEL, loaded
from tests.faults.observed import LOOK_SECONDS, served
from tests.faults.scene import Stage
from tests.faults.witness import witnessed
from tests.raw_websocket import SMALL_BUFFER_BYTES

BUSY, QUIET = f"/ws?channel={CHANNEL}", "/ws?channel=quiet"
RATE, PAYLOAD_BYTES = 100, 10_000
"""Fills all buffers between Brain and a client within seconds."""
MARGIN_SECONDS = 5.0
PATIENCE_SECONDS = 5.0
GOOD_SECONDS = 5.0


async def stopped_processes(
    stage: Stage, *, ping_seconds: float, unread_timeout_seconds: float
) -> Findings:
    """Suspend two clients, one under load and one that is sent nothing."""

    def freeze(clients: Sequence[Crowd]) -> None:
        for client in clients:
            client.freeze()

    return await silenced(stage, freeze, ping_seconds, unread_timeout_seconds)


async def half_open(
    stage: Stage, *, ping_seconds: float, unread_timeout_seconds: float
) -> Findings:
    """Cut the link to two clients, one under load and one that is sent nothing."""
    with link() as dying:
        return await silenced(
            stage, lambda _: dying.die(), ping_seconds, unread_timeout_seconds, dying.address
        )


async def silenced(
    stage: Stage,
    silence: Callable[[Sequence[Crowd]], None],
    ping_seconds: float,
    unread_timeout_seconds: float,
    source: str = "127.0.0.1",
) -> Findings:
    """Silence a busy and a quiet client, and measure how long Brain takes to drop them."""
    limit = max(2 * ping_seconds, unread_timeout_seconds) + MARGIN_SECONDS
    settings = {
        "BRAIN_PING_SECONDS": str(ping_seconds),
        "BRAIN_UNREAD_TIMEOUT_SECONDS": str(unread_timeout_seconds),
    }
    async with (
        served(stage, settings) as node,
        loaded(node.database, PAYLOAD_BYTES) as load,
        witnessed(node.port) as witness,
        crowd(node.port, 1, QUIET, source=source) as quiet,
        crowd(node.port, 1, BUSY, SMALL_BUFFER_BYTES, source) as busy,
        load.flowing(RATE),
    ):
        await becomes_busy(busy)
        silence((quiet, busy))
        first, second = await node.departures(2, 1, limit + PATIENCE_SECONDS)
    return Findings(
        (
            Figure("one of two gone after", first, "s", limit),
            Figure("the other after", second, "s", limit),
            *witness.figures(GOOD_SECONDS),
        )
    )


async def becomes_busy(busy: Crowd) -> None:
    """Return once a crowd has received something."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (await busy.received()).last:
            await asyncio.sleep(LOOK_SECONDS)
