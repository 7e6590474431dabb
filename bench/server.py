"""What the benchmarks run on: a server that flushes its commits, with tasks to write to."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import asyncpg

from bench.processes import family_cpu_seconds
from brain.database.migrations import migrate
from brain.embedded.server import ROLE, EmbeddedServer, serve_embedded
from tests.schemas import every_schema

# How long anything may take that is waited for.
PATIENCE_SECONDS = 60.0

# How long a transaction stays open beside others.
OPEN_SECONDS = 2.0

# The rows that writers choose from.
WRITTEN_ROWS = 10_000

COUNTING = "UPDATE tasks SET progress = progress + 1 WHERE id = :id"
# The clock of a change: read in the statement, since pgbench does not tell when it commits.
STAMPING = "UPDATE tasks SET progress = date_part('epoch', clock_timestamp()) WHERE id = :id"

# As JSON a row has some 600 bytes, 350 of them in its payload.
TASKS = """
INSERT INTO tasks (id, title, agent, payload)
SELECT n::text, 'Task ' || n, 'dev', jsonb_build_object('log', repeat(md5(n::text), 10))
  FROM generate_series(1, $1::integer) n
"""


class Outcome(NamedTuple):
    """What came of a run of pgbench."""

    transactions: int
    rate: float
    """Transactions a second, the time to connect not counted."""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL with Brain's triggers on `tasks`."""

    embedded: EmbeddedServer
    admin: asyncpg.Connection
    """Of a superuser; used by one at a time."""

    @property
    def url(self) -> str:
        return self.embedded.url

    @property
    def cpu_seconds(self) -> float:
        """The processor time of all its processes so far."""
        return family_cpu_seconds(self.embedded.process_id)

    async def clear(self) -> None:
        """Empty the log, and leave the next run nothing to tidy up."""
        await self.admin.execute("TRUNCATE brain.events")
        await self.admin.execute("VACUUM tasks")
        await self.admin.execute("CHECKPOINT")

    async def configure(self, settings: Mapping[str, str]) -> None:
        """Have these settings, and no others, for every session that does not choose its own."""
        await self.admin.execute("ALTER SYSTEM RESET ALL")
        for name, value in settings.items():
            await self.admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await self.admin.execute("SELECT pg_reload_conf()")
        # Nothing says when the postmaster has read it.
        await asyncio.sleep(0.2)

    async def somebody_sleeps(self) -> bool:
        """Whether a node wants to be rung for."""
        query = """
            SELECT EXISTS (SELECT FROM pg_locks
                            WHERE locktype = 'advisory' AND classid = 5221 AND objid = 2
                              AND mode = 'ShareLock' AND granted)
        """
        return bool(await self.admin.fetchval(query))

    async def write(
        self, statement: str, *, writers: int, seconds: int, rate: int | None = None
    ) -> Outcome:
        """Run the statement for random rows, by so many writers, at most `rate` times a second."""
        script = self.embedded.folder.parent / "statement.sql"
        script.write_text(f"\\set id random(1, {WRITTEN_ROWS})\n{statement};\n")
        process = await asyncio.create_subprocess_exec(
            self.embedded.binaries.folder / "pgbench",
            *("--no-vacuum", "--protocol=prepared", f"--file={script}"),
            *(f"--client={writers}", f"--jobs={min(writers, 2)}", f"--time={seconds}"),
            *((f"--rate={rate}",) if rate else ()),
            *("--host=localhost", f"--port={self.embedded.port}", f"--username={ROLE}", ROLE),
            env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(seconds + PATIENCE_SECONDS):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return outcome(output.decode())

    @asynccontextmanager
    async def open_transactions(self) -> AsyncIterator[None]:
        """Have one transaction after the other open that changed a task which no writer chooses."""
        writer = await asyncpg.connect(self.url)

        async def keep_open() -> None:
            while True:
                async with writer.transaction():
                    # Never mistaken for the clock of a writer.
                    await writer.execute(
                        "UPDATE tasks SET progress = random() WHERE id = $1", str(WRITTEN_ROWS + 1)
                    )
                    await asyncio.sleep(OPEN_SECONDS)

        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(keep_open())
            yield
            keeping.cancel()
        await writer.close()


def outcome(output: str) -> Outcome:
    transactions = re.search(r"actually processed: (\d+)", output)
    rate = re.search(r"^tps = ([\d.]+) ", output, re.MULTILINE)
    assert transactions and rate, output
    return Outcome(int(transactions[1]), float(rate[1]))


@asynccontextmanager
async def running_server(folder: Path, rows: int = WRITTEN_ROWS) -> AsyncIterator[Server]:
    """Run a server with so many tasks, and an empty log, until the context ends."""
    with serve_embedded(folder / "database", superuser=True) as embedded:
        await migrate(embedded.url, every_schema())
        admin = await asyncpg.connect(embedded.url)
        try:
            server = Server(embedded, admin)
            await admin.execute(TASKS.replace("$1", str(rows)))
            await server.clear()
            await admin.execute("ANALYZE tasks")
            yield server
        finally:
            await admin.close(timeout=PATIENCE_SECONDS)
