"""What a client may see of channels with row rules, while the database is slow or changes them."""

from __future__ import annotations

import asyncio
from typing import cast

import asyncpg
import pytest

from brain.auth.row_rules import ACCESS, RowRules
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


class LatePool:
    """Lends a pool, and holds back what the database says of the first token."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        records = await self._pool.fetch(query, *arguments)
        if query == ACCESS and not self.is_asked.is_set():
            self.is_asked.set()
            await self.may_answer.wait()
        return list(records)


async def test_what_was_asked_before_the_rules_changed_is_no_answer_after_it(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    async with opened_pool(database) as pool, asyncio.timeout(20):
        late = LatePool(pool)
        have_changed = asyncio.Event()
        rules = RowRules(20, on_change=lambda channels: have_changed.set())
        rules.connect(cast(asyncpg.Pool, late))
        former = asyncio.create_task(rules.access({"sub": "ann"}, ["orders"]))
        await late.is_asked.wait()
        await connection.execute("""SELECT brain.restrict('orders', '{"id": "ids"}')""")
        present = asyncio.create_task(rules.access({"sub": "ann"}, ["orders"]))
        await have_changed.wait()
        for _ in range(10):
            await asyncio.sleep(0)  # until it waits for an answer
        late.may_answer.set()

        columns = [[name for name, _ in (await one)["orders"].rules] for one in (former, present)]
        assert columns == [["", "customer_id"], ["", "id"]]
