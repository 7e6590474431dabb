"""What a client may see of channels with row rules, while the database cannot be asked."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from brain.auth.row_rules import RowRules
from brain.database.connection import opened_pool
from brain.errors import AccessUndecided
from brain.problems import Problems
from tests.proxy import proxy_to

PATIENCE_SECONDS = 6.0
ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, customer_id text);
    SELECT brain.watch('orders', 'orders', '{id}', rules => '{"customer_id": "sub"}');
"""


async def test_a_connection_that_is_being_given_up_keeps_no_client_waiting(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    problems = Problems()
    async with proxy_to(database) as (url, proxy), opened_pool(url) as cut_off:
        rules = RowRules(0.5, problems)
        rules.connect(cut_off)
        assert (await rules.access({"sub": "ann"}, ["orders"])).keys() == {"orders"}
        async with cut_off.acquire(), cut_off.acquire():
            pass  # two are open, as where there are several clients
        proxy.swallow()

        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(AccessUndecided):
                await rules.access({"sub": "ann"}, ["orders"])
        proxy.restore()
    assert problems.recent()[0].text.startswith("access cannot be decided: PostgreSQL did not")
