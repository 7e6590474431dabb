"""
Random filters of random tables: what a client of brain.v1 is sent is what SQL finds in the table.

    python -m tests.session.random_filters [--seeds 50] [--first 1] [--binaries FOLDER]

Each seed is a table, rows, filters and updates as in `tests.database.random_filters`. A client
subscribes with each filter, to snapshots or from the beginning, and keeps the rows that it is sent.
After each step these are the rows that SQL finds; and each row came as what happened to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import asyncpg
import uvloop

from brain.app import build_app
from brain.database.log import Log
from brain.settings import Settings
from tests.database.log_reading import reading
from tests.database.random_filters import TYPES, Trial, Type, run_seeds
from tests.session.v1_client import V1Client, v1_client
from tests.transport.served import served

Seen = dict[tuple[int, str], str]
"""What came of each row on each subscription."""


class SessionTrial(Trial):
    """A trial of which a client gets the rows."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        log: Log,
        random: Random,
        types: Sequence[Type],
        client: V1Client,
    ) -> None:
        super().__init__(connection, log, random, types)
        self._client = client
        self._subs: dict[int, int] = {}
        """The number of the subscription with each filter."""
        self._rows: dict[int, set[str]] = {}
        """The keys that each subscription has."""
        self.ops: Counter[str] = Counter()

    async def subscribe(self, *, after_rows: bool) -> None:
        """Subscribe with each second filter: without rows, or with those that there are."""
        numbers = [number for number in self.filters if number % 2 == after_rows]
        for number in numbers:
            await self._client.websocket.send(
                f'{{"type":"subscribe","id":"filter {number}","channel":"things",'
                f'"snapshot":{str(after_rows).lower()},"where":{self.filters[number]}}}'
            )
        is_live: set[int] = set()
        while any(self._subs.get(number) not in is_live for number in numbers):
            frame = await self._client.receive()
            if "id" in frame:
                assert frame["type"] == "subscribed", frame
                self._subs[int(frame["id"].split()[1])] = frame["sub"]
                self._rows.setdefault(frame["sub"], set())
                # Of filters that mean the same, the later one begins the subscription anew.
                is_live.discard(frame["sub"])
            if not after_rows or frame.get("op") == "live":
                is_live.add(frame["sub"])
            elif frame.get("op") == "snapshot":
                self._rows[frame["sub"]] |= {str(row["key"][0]) for row in frame["rows"]}

    async def insert(self, count: int) -> None:
        await super().insert(count)
        await self._check({number: set() for number in self.filters}, "insert")
        await self.subscribe(after_rows=True)

    async def update(self, count: int) -> None:
        before = await self.matching()
        await super().update(count)
        await self._check(before, "leave")

    async def delete(self) -> None:
        before = await self.matching()
        await super().delete()
        await self._check(before, "delete")

    async def _check(self, before: dict[int, set[str]], gone: str) -> None:
        """Compare what the client is sent with SQL; `gone` is the op of a row that is not there."""
        after = await self.matching()
        seen = await self._read()
        of_subs = {sub: number for number, sub in self._subs.items()}
        for sub, number in of_subs.items():
            text, was, matches = self.filters[number], before[number], after[number]
            assert self._rows[sub] == matches, (text, self._rows[sub], matches)
            for key in was | matches:
                expected = ("update" if key in was else "insert") if key in matches else gone
                op = seen.pop((sub, key), "")
                # An update that changes nothing is none.
                assert op == expected or (expected, op) == ("update", ""), (text, key, expected, op)
                self.ops[op] += 1
        assert not seen, seen

    async def _read(self) -> Seen:
        """Read all that has been written, and keep the rows."""
        seen: Seen = {}
        txid = await self._connection.fetchval("SELECT pg_current_xact_id()::text")
        await self._client.send("until", txid=txid)
        while (frame := await self._client.receive()).get("type") != "until":
            op, rows, key = frame["op"], self._rows[frame["sub"]], str(frame["key"][0])
            assert (frame["sub"], key) not in seen, frame
            assert ("old" in frame) == (op in ("update", "delete")), frame
            seen[frame["sub"], key] = op
            rows.discard(key)
            if "row" in frame:
                rows.add(key)
        return seen


async def run_seed(
    connection: asyncpg.Connection, url: str, seed: int, *, rows: int = 40, filters: int = 40
) -> Counter[str]:
    """Play one seed in a database that has the schema; return what the client was sent."""
    random = Random(seed)
    await connection.execute("SET jit = off")  # as in the sessions of Brain
    app = build_app(url, Settings(max_subscriptions=1000, messages_per_second=10_000))
    async with reading(url) as log, served(app) as (port, _):
        types = random.sample(TYPES, random.randrange(2, 9))
        try:
            async with v1_client(port) as client:
                trial = SessionTrial(connection, log, random, types, client)
                await trial.create()
                await trial.add_filters(filters)
                await trial.subscribe(after_rows=False)
                await trial.insert(rows)
                await trial.update(rows)
                await trial.delete()
        finally:
            await connection.execute("SELECT brain.unwatch('things'); DROP TABLE things")
    return trial.ops


if __name__ == "__main__":
    uvloop.run(run_seeds("tests.session.random_filters", run_seed))
