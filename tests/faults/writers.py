"""Writers that change tasks at a given rate, in overlapping transactions, despite all faults."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from random import Random
from time import monotonic

import asyncpg

from tests.faults.ledger import COMPLETE, DELETED, END, SECRET, UPDATE, Notes

ROLLBACK_SHARE = 0.2
MOST_CHANGES = 24
HOT_TASKS = 40
STEADY_TASKS = 8
FRESH_TASKS = 3

FAILURES = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# Each statement notes in the ledger what it changes. The row lock orders the versions of a task.
INSERT = f"""
    WITH changed AS (INSERT INTO tasks (id, title, agent, progress, payload)
        SELECT id, '{SECRET}', $2, 1, '{{"secret": "{SECRET}"}}' FROM unnest($1::text[]) id
        RETURNING id)
    INSERT INTO ledger SELECT id, 1, $2, '{UPDATE}', $2 FROM changed
"""
ADVANCE = f"""
    WITH changed AS (UPDATE tasks SET progress = progress + 1, agent = $2 WHERE id = ANY ($1)
        RETURNING id, progress)
    INSERT INTO ledger SELECT id, progress, $2, '{UPDATE}', $2 FROM changed
"""
FINISH = f"""
    WITH changed AS (UPDATE tasks SET progress = progress + 1, agent = $2, status = 'completed'
        WHERE id = ANY ($1) RETURNING id, progress)
    INSERT INTO ledger SELECT id, progress, $2, '{COMPLETE}', $2 FROM changed
"""
DELETE = f"""
    WITH changed AS (DELETE FROM tasks WHERE id = ANY ($1) RETURNING id, progress, agent)
    INSERT INTO ledger SELECT id, progress + 1, agent, '{DELETED}', $2 FROM changed
"""
# Changes that no client may receive: of columns that are not watched, or of a table without
# subscribers.
IN_SECRET = (
    f"UPDATE tasks SET title = '{SECRET} ' || clock_timestamp() WHERE id = $1",
    f"UPDATE tasks SET payload = payload || jsonb_build_object('{SECRET}', random()) WHERE id = $1",
    f"INSERT INTO unheard (content) SELECT '{SECRET}' WHERE $1 <> ''",
)

LIFE = (INSERT, ADVANCE, FINISH, DELETE)
"""The statements that change a fresh task, in this order."""


@dataclass
class Plan:
    """The content of one transaction."""

    steps: list[tuple[str, list[str]]]
    """Statements, each with the tasks that it changes."""
    fresh: list[tuple[str, int]]
    """The short-lived tasks among them, with their stage before: an index of `LIFE`."""
    is_doomed: bool
    hold_seconds: float

    @property
    def changes(self) -> int:
        return sum(len(tasks) for _, tasks in self.steps)


@dataclass
class Writer:
    name: str
    """Unique among all writers of the database."""
    number: int
    """Selects the steady tasks that it changes."""
    rate: float
    """In changes per second."""
    batch: int
    """How many changes it collects for a transaction, at most."""
    hold_seconds: float
    """How long a transaction may stay open."""
    notes: Notes
    chance: Random
    _transactions: int = 0
    _fresh: deque[tuple[str, int]] = field(default_factory=deque)

    async def write(self, url: str, stop: asyncio.Event) -> None:
        """Write until `stop` is set. A lost connection is replaced."""
        while not stop.is_set():
            try:
                connection = await asyncpg.connect(url, timeout=5, command_timeout=15)
            except (TimeoutError, *FAILURES):
                await asyncio.sleep(0.05 + self.chance.random() / 10)
                continue
            try:
                await self._write(connection, stop)
            except (TimeoutError, *FAILURES):
                pass
            finally:
                connection.terminate()

    async def _write(self, connection: asyncpg.Connection, stop: asyncio.Event) -> None:
        begun, done, least = monotonic(), 0, 1
        while not stop.is_set():
            due = (monotonic() - begun) * self.rate - done
            if due < least:
                await asyncio.sleep((least - due) / self.rate)
                continue
            least = self.chance.randint(1, self.batch)
            plan = self._plan(min(int(due), MOST_CHANGES))
            done += plan.changes
            await self._transact(connection, plan)

    def _plan(self, changes: int) -> Plan:
        chance = self.chance
        # Sorted, so that two writers never deadlock.
        hot = sorted(chance.choices(range(HOT_TASKS), k=min(changes, chance.randint(1, 3))))
        advanced = [(ADVANCE, [f"hot {number}"]) for number in hot]
        steady = chance.sample(range(STEADY_TASKS), min(STEADY_TASKS, (changes - len(hot)) // 2))
        others = [(ADVANCE, [f"steady {self.number}.{number}" for number in steady])]
        fresh = self._some_fresh(changes - len(hot) - len(steady))
        others += [(LIFE[stage], [id]) for id, stage in fresh]
        chance.shuffle(others)
        places = sorted(chance.choices(range(len(others) + 1), k=len(advanced)))
        for place, step in reversed(list(zip(places, advanced, strict=True))):
            others.insert(place, step)
        hold_seconds = chance.random() * self.hold_seconds
        return Plan(others, fresh, chance.random() < ROLLBACK_SHARE, hold_seconds)

    def _some_fresh(self, most: int) -> list[tuple[str, int]]:
        """Take short-lived tasks that are not deleted yet, and new ones."""
        taken = []
        for number in range(max(0, most)):
            if len(self._fresh) >= FRESH_TASKS or (self._fresh and self.chance.random() < 0.7):
                taken.append(self._fresh.popleft())
            else:
                taken.append((f"fresh {self.name}.{self._transactions}.{number}", 0))
        return taken

    async def _transact(self, connection: asyncpg.Connection, plan: Plan) -> None:
        self._transactions += 1
        name = f"{self.name}.{self._transactions}"
        pause_before = self.chance.randrange(len(plan.steps) + 1)
        await connection.execute("BEGIN")
        for number, (statement, tasks) in enumerate(plan.steps):
            if number == pause_before:
                await asyncio.sleep(plan.hold_seconds)
            await connection.execute(statement, tasks, name)
        if self.chance.random() < 0.2:
            await connection.execute(self.chance.choice(IN_SECRET), f"steady {self.number}.0")
        if pause_before == len(plan.steps):
            await asyncio.sleep(plan.hold_seconds)
        self.notes.changes += plan.changes
        await self._end(connection, plan, name)

    async def _end(self, connection: asyncpg.Connection, plan: Plan, name: str) -> None:
        if plan.is_doomed:
            self.notes.rolled_back.add(name)
            self._live_on(plan, stages=0)
            await connection.execute("ROLLBACK")
            return
        self.notes.note_sent(name)
        await connection.execute("COMMIT")
        self.notes.note_returned(name)
        self._live_on(plan, stages=1)

    def _live_on(self, plan: Plan, stages: int) -> None:
        """Keep the tasks that are not deleted. After an unknown outcome none is kept."""
        for id, stage in plan.fresh:
            lived = stage + stages
            if 0 < lived < len(LIFE):
                self._fresh.append((id, lived))


def prepared_tasks(writers: int) -> list[str]:
    """Return the ids of the first tasks: shared ones, and those of each writer."""
    hot = [f"hot {number}" for number in range(HOT_TASKS)]
    return hot + [f"steady {writer}.{n}" for writer in range(writers) for n in range(STEADY_TASKS)]


async def write_end(connection: asyncpg.Connection, notes: Notes) -> None:
    """Insert the last task of all."""
    notes.sent[END] = monotonic()
    await connection.execute(INSERT, [END], END)
    notes.committed.add(END)
