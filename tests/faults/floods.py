"""Scenarios of clients that send more than any real client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from time import monotonic
from typing import NamedTuple

from tests.faults.figures import Figure, Findings
from tests.faults.load import loaded
from tests.faults.observed import LOOK_SECONDS, served, watched_memory
from tests.faults.scene import Stage
from tests.faults.witness import witnessed
from tests.raw_websocket import CONTINUATION, PING, PONG, TEXT, RawClient, client_frame, upgraded

DOCUMENTED = {1000, 1002, 1003, 1007, 1008, 1009, 1011, *range(4000, 5000)}
"""The close codes that a client may receive for what it sends."""
PIECE_BYTES = 16384
RATE = 50
GOOD_SECONDS = 5.0
GOODBYE_SECONDS = 1.0
MOST_GROWTH_MEBIBYTES = 20.0


class Flood(NamedTuple):
    frame: bytes
    """Sent again and again."""
    first: bytes = b""
    """Sent once, before it."""
    reads: bool = False
    """True if the client reads the replies."""


BEGINNING = client_frame(b"{", TEXT, is_final=False)

FLOODS: Mapping[str, Flood] = {
    "pings": Flood(client_frame(bytes(100), PING)),
    "pongs": Flood(client_frame(bytes(100), PONG), reads=True),
    "empty fragments": Flood(client_frame(b"", CONTINUATION, is_final=False), BEGINNING),
    "fragments of a byte": Flood(client_frame(b" ", CONTINUATION, is_final=False), BEGINNING),
    "texts": Flood(client_frame(b'{"a": "flood"}'), reads=True),
}


class Ending(NamedTuple):
    seconds: float
    """How long it took; infinity if the connection did not end in time."""
    code: int | None
    """The close code, if there was a close frame."""


async def floods(stage: Stage, *, limit_seconds: float, most_bytes: int) -> Findings:
    """Send one flood after the other, while a good client listens."""
    figures: list[Figure] = []
    undocumented = 0
    kinds = stage.chance.sample(sorted(FLOODS), len(FLOODS))
    async with (
        served(stage) as node,
        loaded(node.database) as load,
        witnessed(node.port) as witness,
        load.flowing(RATE),
    ):
        for kind in kinds:
            async with watched_memory(node) as memory, upgraded(node.port) as client:
                end = await flooded(client, FLOODS[kind], limit_seconds, most_bytes)
            how = f"with {end.code}" if end.code else "without a code"
            figures += [
                Figure(f"{kind} cut {how} after", end.seconds, "s", limit_seconds),
                memory.growth(MOST_GROWTH_MEBIBYTES),
            ]
            undocumented += end.code is not None and end.code not in DOCUMENTED
        figures += [Figure("undocumented codes", undocumented, most=0)]
        await witness.receives_more()
        return Findings((*figures, *witness.figures(GOOD_SECONDS)))


async def flooded(client: RawClient, flood: Flood, limit_seconds: float, most_bytes: int) -> Ending:
    """Flood until the server closes the connection, or too long."""
    begun = monotonic()
    tasks: set[asyncio.Task[object]] = {asyncio.create_task(pour(client, flood, most_bytes))}
    if flood.reads:
        tasks.add(asyncio.create_task(client.read_until_closed()))
    try:
        done, _ = await asyncio.wait(
            tasks, timeout=limit_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        seconds = monotonic() - begun if done else inf
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if done:
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await client.read_until_closed()
    return Ending(seconds, client.close_code)


async def pour(client: RawClient, flood: Flood, most_bytes: int) -> None:
    """Send the flood; return once the server has closed the connection."""
    piece = flood.frame * (PIECE_BYTES // len(flood.frame))
    with suppress(OSError):
        await client.send(flood.first)
        for _ in range(most_bytes // len(piece)):
            await client.send(piece)
            # A send that does not have to wait gives no other task a turn.
            await asyncio.sleep(0)
    while client.is_open:
        await asyncio.sleep(LOOK_SECONDS)
