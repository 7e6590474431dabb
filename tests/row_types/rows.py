"""The rows of watched tables as clients get them from a real Brain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from brain.app import build_app
from brain.settings import Settings
from tests.session.v1_client import PATIENCE_SECONDS, V1Client, v1_client
from tests.transport.served import served

Rows = Mapping[str, Sequence[Any]]
"""By channel."""


async def rows_sent(database: str, channels: Sequence[str], **options: str) -> Rows:
    """Return the rows in the snapshots of channels, as Brain's client for Python parses them."""
    found: dict[str, list[Any]] = {channel: [] for channel in channels}
    async with served(build_app(database, Settings())) as (port, _), v1_client(port) as client:
        for channel in channels:
            await client.subscribe(channel, snapshot=True, **options)
            while (frame := parsed(await received(client))).get("op") != "live":
                if frame["op"] == "snapshot":
                    found[channel] += [row["row"] for row in frame["rows"]]
    return found


async def received(client: V1Client) -> str:
    async with asyncio.timeout(PATIENCE_SECONDS):
        text = await client.websocket.recv()
    return str(text)


def parsed(text: str) -> Any:
    return json.loads(text, parse_float=exact)


def exact(text: str) -> float | Decimal:
    """Return a number as a float if that has all its digits."""
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else Decimal(text)
