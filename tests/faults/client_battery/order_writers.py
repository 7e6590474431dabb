"""Writers whose overlapping transactions leave the sum of all open orders as it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from random import Random

import asyncpg

from tests.faults.client_battery.orders import BANKS, IDS, IS_OPEN, OPEN_SUM, STATUSES

# Who waits for a lock may have to wait for a transaction that waits for this one.
SESSION = "SET deadlock_timeout = '50ms'; SET lock_timeout = '200ms'"
INSERT = """
    INSERT INTO orders VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING status, total
"""
ADD = "UPDATE orders SET total = total + $2 WHERE id = $1 RETURNING status"
ADD_TO_ALL = f"UPDATE orders SET total = total + $1 WHERE id > 0 AND status = '{IS_OPEN}'"
OPEN = (
    f"UPDATE orders SET status = '{IS_OPEN}' WHERE id = $1 AND status <> '{IS_OPEN}'"
    " RETURNING total"
)
LEAVE = f"UPDATE orders SET status = $2 WHERE id = $1 AND status = '{IS_OPEN}' RETURNING total"
DELETE = "DELETE FROM orders WHERE id = $1 RETURNING status, total"
RENAME = """
    UPDATE orders SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM orders WHERE id = $2)
"""
BOOK = "UPDATE orders SET total = total - $2 WHERE id = $1"
# How often a change is of each kind.
SHARES = {
    "insert": 30,
    "insert many": 4,
    "add": 25,
    "add to all": 4,
    "open": 10,
    "leave": 12,
    "delete": 12,
    "rename": 3,
    "truncate": 1,
    "take back": 6,
}
ROLLBACK_SHARE = 0.12


class WriterFailed(Exception):
    """A statement did something that it cannot do."""


@dataclass
class OrderWriter:
    bank: int
    """The row in which it books."""
    chance: Random
    pause_seconds: float
    """The longest pause after a transaction."""
    transactions: int = 0

    async def write(self, database: str, stop: asyncio.Event) -> None:
        """Attempt transactions until `stop` is set."""
        connection = await asyncpg.connect(database)
        try:
            await connection.execute(SESSION)
            while not stop.is_set():
                try:
                    await self.transact(connection)
                except asyncpg.PostgresError:
                    # A lock that another transaction holds, a deadlock, or a key that exists.
                    await connection.execute("ROLLBACK")
                await asyncio.sleep(self.chance.uniform(0, self.pause_seconds))
        finally:
            connection.terminate()

    async def transact(self, connection: asyncpg.Connection) -> None:
        """Do a transaction, which may be rolled back."""
        chance = self.chance
        await connection.execute("BEGIN")
        debt = Decimal(0)
        for _ in range(chance.choice([1, 1, 2, 3, 5, 8])):
            debt += await self._change(connection, self._kind())
            if chance.random() < 0.1:
                await asyncio.sleep(chance.uniform(0, 0.02))
        if debt and await connection.execute(BOOK, self.bank, debt) != "UPDATE 1":
            raise WriterFailed(f"there is no bank {self.bank}")
        if chance.random() < ROLLBACK_SHARE:
            await connection.execute("ROLLBACK")
        else:
            await connection.execute("COMMIT")
            self.transactions += 1

    def _kind(self) -> str:
        return self.chance.choices(list(SHARES), list(SHARES.values()))[0]

    async def _change(self, connection: asyncpg.Connection, kind: str) -> Decimal:
        """Change some rows; return what the sum of all open orders has risen by."""
        id, amount = self.chance.choice(IDS), self._amount()
        match kind:
            case "insert":
                return await self._insert(connection, id)
            case "insert many":
                return sum([await self._insert(connection, id) for id in self._ids()], Decimal(0))
            case "truncate":
                return await self._truncate(connection)
            case "take back":
                return await self._take_back(connection)
            case _:
                return await self._change_rows(connection, kind, id, amount)

    async def _change_rows(
        self, connection: asyncpg.Connection, kind: str, id: int, amount: Decimal
    ) -> Decimal:
        match kind:
            case "add":
                status = await connection.fetchval(ADD, id, amount)
                return amount if status == IS_OPEN else Decimal(0)
            case "add to all":
                count = (await connection.execute(ADD_TO_ALL, amount)).removeprefix("UPDATE ")
                return amount * int(count)
            case "open":
                return await connection.fetchval(OPEN, id) or Decimal(0)
            case "leave":
                return -(await connection.fetchval(LEAVE, id, self._status()) or Decimal(0))
            case "delete":
                return -open_total(await connection.fetchrow(DELETE, id))
            case _:
                await connection.execute(RENAME, id, self.chance.choice(IDS))
                return Decimal(0)

    async def _insert(self, connection: asyncpg.Connection, id: int) -> Decimal:
        status = self.chance.choice([IS_OPEN, *STATUSES])
        return open_total(await connection.fetchrow(INSERT, id, status, self._amount()))

    async def _truncate(self, connection: asyncpg.Connection) -> Decimal:
        """Remove all rows, and put the banks back with all that there was."""
        await connection.execute("LOCK orders IN ACCESS EXCLUSIVE MODE")
        before = await connection.fetchval(
            f"SELECT sum(total) FROM orders WHERE status = '{IS_OPEN}'"
        )
        await connection.execute("TRUNCATE orders")
        for bank in BANKS:
            await connection.execute(INSERT, bank, IS_OPEN, OPEN_SUM / len(BANKS))
        return Decimal(OPEN_SUM - before)

    async def _take_back(self, connection: asyncpg.Connection) -> Decimal:
        """Do something that a savepoint takes back."""
        await connection.execute("SAVEPOINT before")
        await self._change(connection, self.chance.choice(["insert", "add to all", "delete"]))
        await connection.execute("ROLLBACK TO before")
        return Decimal(0)

    def _ids(self) -> list[int]:
        return self.chance.sample(IDS, self.chance.randint(5, 15))

    def _status(self) -> str:
        return self.chance.choice(STATUSES[1:])

    def _amount(self) -> Decimal:
        """Return a number, of which a double may not have all digits; sums have them in Decimal."""
        chance = self.chance
        most = 10 ** chance.choice([1, 2, 4, 20])
        return Decimal(chance.randint(-most, most)).scaleb(-chance.choice([0, 0, 2, 4]))


def open_total(record: asyncpg.Record | None) -> Decimal:
    """Return the total of an order, or 0 if there is none, or it is not open."""
    return record["total"] if record is not None and record["status"] == IS_OPEN else Decimal(0)
