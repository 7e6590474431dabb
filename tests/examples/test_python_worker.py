"""The example of a worker in Python, which is killed while orders come in."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from tests.end_to_end.brain import PATIENCE_SECONDS, RunningBrain, running, running_brain

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "examples" / "python-worker" / "worker.py"
ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric);
    SELECT brain.watch('orders', 'orders', '{id,status,total}');
    INSERT INTO orders VALUES (1, 'open', 9.90), (2, 'paid', 1), (3, 'open', 1e20);
"""
KILLS = 5


class Runs:
    """The runs of a worker, and what they have handled."""

    def __init__(self, folder: Path, brain: RunningBrain) -> None:
        self._folder = folder
        self._brain = brain
        self._outputs: list[Path] = []

    def handled(self) -> Counter[int]:
        """Return how often each order was handled."""
        lines = [line for one in self._outputs for line in one.read_text().splitlines()]
        assert all(line.startswith("handled ") for line in lines), lines
        return Counter(int(line.removeprefix("handled ")) for line in lines)

    async def have_handled(self, orders: set[int]) -> None:
        """Wait until these orders were handled."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not orders <= self.handled().keys():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"missing: {orders - self.handled().keys()}") from None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the worker, and kill it in the end."""
        output = self._folder / f"worker-{len(self._outputs)}.log"
        output.touch()
        self._outputs.append(output)
        environment = {
            "BRAIN_URL": self._brain.http,
            "CURSOR_FILE": str(self._folder / "orders.cursor"),
            "PYTHONPATH": str(ROOT),
        }
        async with running((sys.executable, str(WORKER)), output, environment) as process:
            try:
                yield
            finally:
                assert process.returncode is None, output.read_text()
                process.kill()
                await process.wait()


async def test_a_worker_that_is_killed_leaves_no_order_out_and_repeats_one_for_each_kill(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await connection.execute(ORDERS)
    chance = random.Random(5221)
    orders = {1, 3}
    async with running_brain(tmp_path, "--database-url", database) as brain:
        runs = Runs(tmp_path, brain)
        for kill in range(KILLS + 1):
            async with runs.run():
                # What came while it was away first.
                await runs.have_handled(orders)
                for number in range(50):
                    order = 100 * (kill + 1) + number
                    await connection.execute("INSERT INTO orders VALUES ($1, 'open', 1)", order)
                    orders.add(order)
                if kill == KILLS:
                    await runs.have_handled(orders)
                else:
                    await runs.have_handled({100 * (kill + 1) + chance.randrange(50)})
        handled = runs.handled()

    assert handled.keys() == orders
    assert sum(handled.values()) - len(orders) <= KILLS
