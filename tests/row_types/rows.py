"""The rows of watched tables as clients get them from a real Brain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from brain.app import build_app
from brain.settings import Settings
from tests.session.v1_client import v1_client
from tests.transport.served import served

Rows = Mapping[str, Sequence[Any]]
"""By channel."""


async def rows_sent(database: str, channels: Sequence[str], **options: str) -> Rows:
    """Return the rows in the snapshots of some channels, parsed as Brain's client for Python does."""
    found: dict[str, list[Any]] = {channel: [] for channel in channels}
    async with served(build_app(database, Settings())) as (port, _), v1_client(port) as client:
        for channel in channels:
            await client.subscribe(channel, snapshot=True, **options)
            while (frame := parsed(await client.text()))["op"] != "live":
                if frame["op"] == "snapshot":
                    found[channel] += [row["row"] for row in frame["rows"]]
    return found


def parsed(text: str) -> Any:
    return json.loads(text, parse_float=exact)


def exact(text: str) -> float | Decimal:
    """Return a number as a float if that has all its digits."""
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else Decimal(text)
