"""
What simple clients keep of random tables, compared with what SQL says, whatever is killed.

    python -m tests.faults.states [--seeds 50] [--first 1] [--binaries FOLDER]

Each seed is a table with columns of random types, clients with random filters and tokens, and row
rules; and rounds of writing: transactions overlap, connections are cut, Brains and PostgreSQL are
killed. After each round the rows of every client have to be those that its filter and the row rules
select; and each transaction that a client has applied has to have been there as a whole.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import uvloop

from tests.database.random_filters import USER_TYPES, random_filter
from tests.faults.figures import Findings
from tests.faults.judged_copy import JudgedCopy, Tally, difference, fault
from tests.faults.random_table import (
    OWNERS,
    RULES,
    SECRET,
    TEAMS,
    RandomTable,
    Rows,
    State,
    View,
)
from tests.faults.random_writers import History, RandomWriter
from tests.faults.scene import Scene, Stage, connected, set_up
from tests.faults.servers import DidNotStart, OwnPostgres, own_postgres
from tests.faults.simple_client import SseClient, WebSocketClient

PATIENCE_SECONDS = 30.0
CLIENTS = 8
ROWS = 20
"""That the table has at first, or fewer."""
TRIES = 10
"""Filters that are drawn until one matches some rows and not others."""
WRITERS = 3
SNAPSHOTS: Sequence[Mapping[str, Any]] = (
    {"snapshot": True},
    {"snapshot": True, "limit": 1},
    {"snapshot": True, "limit": 3},
    {"snapshot": "exact"},
)
KILLS = ("database", "", "brain", "")
"""What is killed in each round, in turn."""
SETTINGS = {
    "BRAIN_JWT_SECRET": SECRET,
    "BRAIN_DEFAULT_CHANNELS": "*",
    "BRAIN_HEARTBEAT_SECONDS": "0.3",
    "BRAIN_IDLE_POLL_SECONDS": "0.5",
    "BRAIN_DATABASE_TIMEOUT_SECONDS": "1",
}


@dataclass
class Follower:
    """A client of one view."""

    view: View
    number: int
    """Of the view."""
    client: WebSocketClient | SseClient
    copy: JudgedCopy
    request: Mapping[str, Any]


class Trial:
    """One seed."""

    def __init__(
        self, seed: int, scene: Scene, postgres: OwnPostgres, tally: Tally, name: str
    ) -> None:
        self._seed = seed
        self._chance = Random(seed)
        self._scene = scene
        self._postgres = postgres
        self._tally = tally
        self._table = RandomTable.make(self._chance, name)
        self._history = History(scene.database, self._table, State({}, ()))
        self._followers: list[Follower] = []

    async def play(self, rounds: int, transactions: int) -> None:
        async with connected(self._scene.database) as connection:
            await self._table.create(connection)
            await self._table.fill(connection, self._chance, ROWS)
            await self._table.restrict(connection, self._chance.choice(RULES))
            for number in range(CLIENTS):
                self._add_follower(number, await self._filter(connection))
        await self._history.read()
        async with asyncio.TaskGroup() as tasks:
            following = [
                tasks.create_task(one.client.follow(self._next_address)) for one in self._followers
            ]
            try:
                for _ in range(rounds):
                    kill = KILLS[self._tally.rounds % len(KILLS)]
                    await self._round(kill, transactions)
            finally:
                for task in following:
                    task.cancel()
        self._tally.seeds += 1
        async with connected(self._scene.database) as connection:
            await connection.execute(f"SELECT brain.unwatch('{self._table.name}')")
            await connection.execute(f"DROP TABLE {self._table.name}")

    async def _filter(self, connection: asyncpg.Connection) -> str | None:
        """Return a filter, if possible one that some rows match and others do not."""
        if self._chance.random() < 0.2:
            return None
        for _ in range(TRIES):
            filter = random_filter(self._chance, self._table.columns)
            share = await self._table.share_of(connection, filter)
            if 0.1 < share < 0.9:
                break
        return filter

    def _add_follower(self, number: int, filter: str | None) -> None:
        chance = self._chance
        claims = {
            name: chance.sample(values, chance.randint(1, 3))
            for name, values in (("teams", TEAMS), ("owners", OWNERS))
            if chance.random() < 0.9
        }
        view = self._table.add_view(filter, claims)
        snapshot = chance.choice(SNAPSHOTS)
        copy, request = JudgedCopy(), {"channel": self._table.name, **snapshot}
        transport = chance.choice((WebSocketClient, SseClient))
        client = transport(copy, request, filter or "", view.token)
        self._followers.append(Follower(view, number, client, copy, request))

    def _next_address(self) -> str:
        return f"127.0.0.1:{self._chance.choice(self._scene.nodes).port}"

    async def _round(self, kill: str, transactions: int) -> None:
        chance = self._chance
        writers = [RandomWriter(self._history, Random(chance.random())) for _ in range(WRITERS)]
        async with asyncio.TaskGroup() as tasks:
            writing = [tasks.create_task(writer.write(transactions)) for writer in writers]
            await self._disturb(kill, writing)
        self._tally.rounds += 1
        self._tally.transactions += sum(writer.transactions for writer in writers)
        self._tally.statements += sum(writer.statements for writer in writers)
        state = await self._history.read()
        await asyncio.gather(
            *(self._compare(one, state.views[one.number]) for one in self._followers)
        )
        for one in self._followers:
            self._judge(one)
        if chance.random() < 0.4:
            async with connected(self._scene.database) as connection:
                await self._table.restrict(connection, chance.choice(RULES))
            await self._history.read()

    async def _disturb(self, kill: str, writing: Sequence[asyncio.Task[None]]) -> None:
        chance = self._chance
        await asyncio.sleep(chance.uniform(0, 0.2))
        if kill == "brain":
            node = chance.choice(self._scene.nodes)
            await node.end(signal.SIGKILL)
            await node.start()
            self._tally.brains_killed += 1
        elif kill == "database":
            await kill_and_start(self._postgres)
            self._tally.databases_killed += 1
        while not all(task.done() for task in writing):
            chance.choice(self._followers).client.cut(forgets=chance.random() < 0.3)
            self._tally.cut += 1
            await asyncio.sleep(chance.uniform(0, 0.2))

    async def _compare(self, follower: Follower, expected: Rows) -> None:
        """Wait until a client has what it should have, and keeps it for a heartbeat."""
        copy = follower.copy
        self._tally.compared += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                heartbeats = copy.heartbeats
                while not (copy.rows == expected and copy.heartbeats > heartbeats + 1):
                    if copy.rows != expected:
                        heartbeats = copy.heartbeats
                    await asyncio.sleep(0.02)
        except TimeoutError:
            self._tally.different += 1
            what = difference(copy.rows, expected)
            heartbeats = copy.heartbeats - heartbeats
            problem = follower.client.problem
            self._tally.note(f"{self._described(follower)}: {what}; {heartbeats=}, {problem=}")

    def _judge(self, follower: Follower) -> None:
        """Judge each transaction that a client has applied: all of it has to be there."""
        for txid, rows in follower.copy.applied:
            self._tally.whole += 1
            what = fault(rows, self._history.effects.get(txid), follower.number)
            if what is not None:
                self._tally.torn += 1
                self._tally.note(f"{self._described(follower)}, after {txid}: {what}")
        follower.copy.applied.clear()
        self._tally.frames += follower.copy.frames
        follower.copy.frames.clear()

    def _described(self, follower: Follower) -> str:
        view = follower.view
        return (
            f"seed {self._seed}, {type(follower.client).__name__} {follower.request}, filter"
            f" {view.filter}, claims {view.claims}, rule {self._table.rule}"
        )


async def kill_and_start(postgres: OwnPostgres) -> None:
    """Kill PostgreSQL, and start it as soon as its processes are gone."""
    await postgres.stop(signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await postgres.start()
            except DidNotStart:
                await asyncio.sleep(0.1)
            else:
                return


async def states(
    stage: Stage,
    *,
    seeds: int,
    first: int | None = None,
    rounds: int = 3,
    transactions: int = 20,
    nodes: int = 2,
    says: bool = False,
) -> Findings:
    """
    Play seeds from `first` on, or from one that the chance of the stage chooses.

    `transactions` are those of each writer in each round.
    """
    if first is None:
        first = stage.chance.randrange(10**6)
    tally = Tally()
    async with own_postgres(stage.binaries) as postgres, set_up(stage, postgres.url) as scene:
        async with connected(scene.database) as connection:
            await connection.execute(USER_TYPES)
        for _ in range(nodes):
            await scene.serve(**SETTINGS)
        for seed in range(first, first + seeds):
            trial = Trial(seed, scene, postgres, tally, f"things_{seed}")
            await trial.play(rounds, transactions)
            if says:
                print(f"seed {seed}: {tally.findings()}", flush=True)
    return tally.findings()


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.states")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--binaries", type=Path, help="folder of PostgreSQL's programs")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="brain-states-"))
    stage = Stage("", folder, Random(0), arguments.binaries)
    findings = await states(stage, seeds=arguments.seeds, first=arguments.first, says=True)
    print(f"the logs of the Brains are in {folder}")
    return 0 if findings.is_clean else 1


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
