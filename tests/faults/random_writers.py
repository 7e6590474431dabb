"""Writers with overlapping transactions on one table, whose every committed state is known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import asyncpg

from tests.faults.random_table import OWNERS, SETTINGS, RandomTable, Rows, State
from tests.faults.scene import connected
from tests.faults.writers import FAILURES

RETRY_SECONDS = 0.1
PATIENCE_SECONDS = 60.0

# Who waits for a lock may have to wait for a transaction that waits for its turn to commit.
SESSION = "SET deadlock_timeout = '50ms'; SET lock_timeout = '150ms'"
STATUS = "SELECT pg_xact_status($1::text::xid8)"
# How often a statement is of each kind.
SHARES = {
    "insert": 35,
    "update": 20,
    "update some": 10,
    "rename": 10,
    "delete": 12,
    "delete some": 3,
    "TRUNCATE {}": 2,
    "UPDATE {} SET team = team": 3,
    """SELECT brain.publish('{}', 'note', '{{"team": "red", "owner": 7}}')""": 5,
}


class Effect(NamedTuple):
    """What a transaction left behind of the rows that it changed, in each view."""

    keys: frozenset[str]
    views: Sequence[Rows]


@dataclass
class History:
    """
    The committed states of a table.

    Transactions overlap, but one commits at a time, and reads the table before.
    """

    url: str
    table: RandomTable
    state: State
    """The newest one."""
    effects: dict[str, Effect] = field(default_factory=dict)
    """By transaction id."""
    committing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self) -> State:
        """Return the state of now."""
        async with connected(self.url) as connection:
            self.state = await self._read(connection)
        return self.state

    async def commit(self, connection: asyncpg.Connection, txid: str) -> None:
        """Commit what a connection has done in a transaction."""
        async with self.committing:
            state = await self._read(connection)
            try:
                await connection.execute("COMMIT")
            except (TimeoutError, *FAILURES):
                if not await self._was_committed(txid):
                    raise
            self.note(txid, state)

    async def _read(self, connection: asyncpg.Connection) -> State:
        await connection.execute(SETTINGS)
        return await self.table.state(connection)

    async def _was_committed(self, txid: str) -> bool:
        """Return True if a transaction was committed, as soon as the database can be asked."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    async with connected(self.url) as connection:
                        status = await connection.fetchval(STATUS, txid)
                        return bool(status == "committed")
                except (TimeoutError, *FAILURES):
                    await asyncio.sleep(RETRY_SECONDS)

    def note(self, txid: str, after: State) -> None:
        """Note what a transaction has done."""
        before = self.state.rows
        changed = {key for key, row in after.rows.items() if before.get(key) != row}
        keys = frozenset(changed | before.keys() - after.rows.keys())
        shown = [{key: view[key] for key in keys if key in view} for view in after.views]
        self.effects[txid] = Effect(keys, shown)
        self.state = after


@dataclass
class RandomWriter:
    history: History
    chance: Random
    transactions: int = 0
    statements: int = 0

    async def write(self, transactions: int) -> None:
        """Attempt some transactions; a lost connection is replaced."""
        connection: asyncpg.Connection | None = None
        try:
            for _ in range(transactions):
                try:
                    if connection is None:
                        connection = await asyncpg.connect(self.history.url, timeout=5)
                        await connection.execute(SESSION)
                    await self._transact(connection)
                except (TimeoutError, *FAILURES):
                    # A key that exists, a deadlock, or the database has ended.
                    connection = await self._rolled_back(connection)
        finally:
            if connection is not None:
                connection.terminate()

    async def _rolled_back(
        self, connection: asyncpg.Connection | None
    ) -> asyncpg.Connection | None:
        if connection is not None:
            try:
                await connection.execute("ROLLBACK")
                return connection
            except (TimeoutError, *FAILURES):
                connection.terminate()
        await asyncio.sleep(RETRY_SECONDS)
        return None

    async def _transact(self, connection: asyncpg.Connection) -> None:
        chance = self.chance
        await connection.execute("BEGIN")
        txid = await connection.fetchval("SELECT pg_current_xact_id()::text")
        for _ in range(chance.choice([1, 1, 2, 3, 5, 8])):
            if chance.random() < 0.1:
                await self._take_back(connection)
            else:
                await connection.execute(self._statement())
            self.statements += 1
            if chance.random() < 0.3:
                await asyncio.sleep(chance.uniform(0, 0.02))
        if chance.random() < 0.15:
            await connection.execute("ROLLBACK")
            return
        await self.history.commit(connection, txid)
        self.transactions += 1

    async def _take_back(self, connection: asyncpg.Connection) -> None:
        """Do something that a savepoint takes back."""
        await connection.execute("SAVEPOINT before")
        await connection.execute(self._statement())
        await connection.execute("ROLLBACK TO before")

    def _statement(self) -> str:
        chance, table = self.chance, self.history.table
        key = table.where(table.random_key(chance))
        some = f"owner = {chance.choice(OWNERS)}"
        what = chance.choices(list(SHARES), list(SHARES.values()))[0]
        match what:
            case "insert":
                return table.insert(chance)
            case "update":
                return table.update(chance, key)
            case "update some":
                return table.update(chance, some)
            case "rename":
                return table.rename(chance)
            case "delete":
                return table.delete(key)
            case "delete some":
                return table.delete(some)
            case _:
                return what.format(table.name)
