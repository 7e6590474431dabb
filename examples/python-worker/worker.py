"""Handles each open order; after a crash, the one that was being handled once more."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from brain.client import Brain

URL = os.environ.get("BRAIN_URL", "http://localhost:5221")
TOKEN = os.environ.get("BRAIN_TOKEN")
CURSOR_FILE = os.environ.get("CURSOR_FILE", "orders.cursor")


async def handle(order: dict[str, Any]) -> None:
    """Do what an order needs: it may be done twice, so let it be idempotent."""
    print(f"handled {order['id']}", flush=True)


async def main() -> None:
    async with Brain(URL, token=TOKEN, cursor_file=CURSOR_FILE) as brain:
        async for change in brain.subscribe("orders", snapshot=True, where={"status": "open"}):
            # An order that is reopened is an insert to this subscription, too.
            if change.op in ("snapshot", "insert") and change.row is not None:
                await handle(change.row)
            # The cursor is stored now, as the next change is asked for.


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
