"""The PostgreSQL of the benchmarks: it flushes its commits, and has tasks to update."""

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

# The timeout of every wait.
PATIENCE_SECONDS = 60.0

# How long a transaction stays open beside others.
OPEN_SECONDS = 2.0

# Writers update random rows out of these.
WRITTEN_ROWS = 10_000

COUNTING = "UPDATE tasks SET progress = progress + 1 WHERE id = :id"
# The time of a change: read in the statement, since pgbench does not report when it commits.
STAMPING = "UPDATE tasks SET progress = date_part('epoch', clock_timestamp()) WHERE id = :id"

# As JSON a row has about 600 bytes, 350 of them in its payload.
TASKS = """
INSERT INTO tasks (id, title, agent, payload)
SELECT n::text, 'Task ' || n, 'dev', jsonb_build_object('log', repeat(md5(n::text), 10))
  FROM generate_series(1, $1::integer) n
"""


class Outcome(NamedTuple):
    """The result of a run of pgbench."""

    transactions: int
    rate: float
    """Transactions per second, without the time to connect."""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL with Brain's triggers on `tasks`."""

    embedded: EmbeddedServer
    admin: asyncpg.Connection
    """A connection of a superuser; not for concurrent use."""

    @property
    def url(self) -> str:
        return self.embedded.url

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all processes of the server so far."""
        return family_cpu_seconds(self.embedded.process_id)

    async def clear(self) -> None:
        """Empty the log, vacuum and checkpoint, so that the next run starts clean."""
        await self.admin.execute("TRUNCATE brain.events")
        await self.admin.execute("VACUUM tasks")
        await self.admin.execute("CHECKPOINT")

    async def configure(self, settings: Mapping[str, str]) -> None:
        """Set these settings, and reset all others, for sessions that do not set their own."""
        await self.admin.execute("ALTER SYSTEM RESET ALL")
        for name, value in settings.items():
            await self.admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await self.admin.execute("SELECT pg_reload_conf()")
        # PostgreSQL does not report when the postmaster has reloaded its settings.
        await asyncio.sleep(0.2)

    async def has_parked_node(self) -> bool:
        """Return True if a node is parked: writers send NOTIFY."""
        query = """
            SELECT EXISTS (SELECT FROM pg_locks
                            WHERE locktype = 'advisory' AND classid = 5221 AND objid = 2
                              AND mode = 'ShareLock' AND granted)
        """
        return bool(await self.admin.fetchval(query))

    async def write(
        self, statement: str, *, writers: int, seconds: int, rate: int | None = None
    ) -> Outcome:
        """Run the statement on random rows over `writers` connections, `rate` a second at most."""
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
        """Keep one transaction after the other open, each with a change that no writer makes."""
        writer = await asyncpg.connect(self.url)

        async def keep_open() -> None:
            while True:
                async with writer.transaction():
                    # Less than 1, so never mistaken for a time.
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
    """Run a PostgreSQL with `rows` tasks and an empty log until the context ends."""
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
