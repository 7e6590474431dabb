"""A random concurrent workload: writers on hot rows, readers, and a node that trims."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from random import Random

import asyncpg

from tests.database.history import Reader, must
from tests.database.stage import Stage, Writer

TASKS = ("row", "other", "third")
WRITERS = 5
TRANSACTIONS = 12
KEEP = "50 ms"

UPSERT = """
    INSERT INTO tasks (id, agent) VALUES ($1, $2)
    ON CONFLICT (id) DO UPDATE SET progress = tasks.progress + 1, agent = excluded.agent
"""


class Workload:
    """The seed determines the steps of each session; their interleaving is up to the machine."""

    def __init__(self, stage: Stage, seed: str) -> None:
        self._stage = stage
        self._seed = seed
        self._is_over = asyncio.Event()

    async def run(self, *, trims: bool = False) -> list[Reader]:
        """
        Run to the end, check the events that the readers have read, and return the readers.

        The last reader does not follow the log: it begins again every now and then or, if the log
        is trimmed, reads only once its cursor is lost. Raises `Violation`.
        """
        readers = [await self._stage.reader() for _ in range(3)]
        async with AsyncExitStack() as stack:
            others = [self._follow(reader, number) for number, reader in enumerate(readers[:2])]
            others.append((self._return_late if trims else self._begin_anew)(readers[2]))
            if trims:
                others.append(self._trim(await self._stage.session()))
            tasks = [self._stage.start(steps) for steps in others]
            stack.callback(self._is_over.set)
            writers = [await self._stage.writer() for _ in range(WRITERS)]
            await asyncio.gather(*(self._write(writer) for writer in writers))
        await asyncio.gather(*tasks)
        for reader in readers:
            await reader.check()
        self._check_agreement(*readers)
        return readers

    def _check_agreement(self, one: Reader, other: Reader, passing: Reader) -> None:
        """Check that all have read the same events, except those that the log no longer held."""
        if not one.resyncs and not other.resyncs:
            must(one.events_read == other.events_read, "two readers have read different events")
            must(
                passing.events_read.items() <= one.events_read.items(),
                "one reader has read events that another has not",
            )
        for place in one.events_read.keys() & other.events_read.keys():
            must(
                one.events_read[place] == other.events_read[place],
                f"the readers disagree about {place}",
            )

    def _random(self, of: object) -> Random:
        return Random(f"{self._seed} {of}")

    async def _write(self, writer: Writer) -> None:
        random = self._random(writer.number)
        for _ in range(TRANSACTIONS):
            await writer.begin(early=random.random() < 0.3)
            await pause(random, 10)
            # In one order, so that writers do not deadlock.
            for id in sorted(random.sample(TASKS, random.randint(1, len(TASKS)))):
                await self._change(writer, id, random)
                await pause(random, 3)
            await writer.session.execute("ROLLBACK" if random.random() < 0.1 else "COMMIT")

    async def _change(self, writer: Writer, id: str, random: Random) -> None:
        is_undone = random.random() < 0.15
        if is_undone:
            await writer.session.execute("SAVEPOINT s")
        if random.random() < 0.05:
            await writer.session.execute("DELETE FROM tasks WHERE id = $1", id)
        await writer.session.execute(UPSERT, id, writer.signature)
        if is_undone:
            await writer.session.execute("ROLLBACK TO s")

    async def _follow(self, reader: Reader, number: int) -> None:
        random = self._random(f"reader {number}")
        while not self._is_over.is_set():
            if random.random() < 0.2:
                await reader.log.tick()
            most = random.choice([None, 1, 2])
            await reader.read(most, cut=random.random() < 0.7)
            await pause(random, 100 if random.random() < 0.05 else 10)

    async def _begin_anew(self, reader: Reader) -> None:
        random = self._random("beginner")
        while not self._is_over.is_set():
            await reader.begin()
            for _ in range(random.randint(0, 5)):
                await pause(random, 10)
                await reader.read()

    async def _return_late(self, reader: Reader) -> None:
        while not self._is_over.is_set():
            if not await reader.log.holds(reader.cursor):
                await reader.read()

    async def _trim(self, session: asyncpg.Connection) -> None:
        while not self._is_over.is_set():
            await session.execute(f"SELECT brain.trim('{KEEP}')")
            await asyncio.sleep(0.005)


async def pause(random: Random, most_milliseconds: float) -> None:
    await asyncio.sleep(random.random() * most_milliseconds / 1000)
