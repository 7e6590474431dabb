"""What the tests of the client share: a table, and loops that end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from brain.client import Change, Subscription

PATIENCE_SECONDS = 40.0
ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric);
    SELECT brain.watch('orders', 'orders', '{id,status,total}');
"""


async def next_of(changes: Subscription[Any]) -> Change[Any]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await anext(changes)


async def up_to(changes: Subscription[Any], op: str) -> list[Change[Any]]:
    """Return the changes up to the first with this operation."""
    return await until(changes, lambda change: change.op == op)


async def until(
    changes: Subscription[Any], is_last: Callable[[Change[Any]], bool]
) -> list[Change[Any]]:
    """Return the changes up to the first for which `is_last` holds."""
    got = [await next_of(changes)]
    while not is_last(got[-1]):
        got.append(await next_of(changes))
    return got


def ops(changes: list[Change[Any]]) -> list[tuple[str, Any]]:
    """Return operations, with the first value of each key."""
    return [(change.op, change.key[0] if change.key else None) for change in changes]
