from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest

from brain.database.migrations import migrate
from brain.errors import SchemaGone
from brain.listener.batch_source import BatchSource
from brain.message.event import Batch
from brain.problems import Problems
from brain.settings import Settings
from tests.proxy import proxy_to
from tests.schemas import every_schema
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions

PATIENCE_SECONDS = 20.0

# Longer than the timeout of a test, so that no test passes by the fallback poll alone.
RARELY = Settings(idle_poll_seconds=60)


class Collected:
    """Collects the batches of a batch source."""

    def __init__(self, source: BatchSource) -> None:
        self.source = source
        self.past: Batch | None = None
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()

    async def relay(self) -> None:
        async for batch in self.source.batches():
            if batch.ticks:
                self.past = batch
            else:
                self._batches.put_nowait(batch)

    async def batch(self) -> Batch:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._batches.get()

    async def keys(self, count: int) -> list[object]:
        """Return the keys of the next `count` events."""
        keys: list[object] = []
        while len(keys) < count:
            keys += keys_of(await self.batch())
        return keys

    @property
    def is_empty(self) -> bool:
        return self._batches.empty()


def keys_of(batch: Batch) -> list[object]:
    return [event.key_text for event in batch.events]


@asynccontextmanager
async def listening(
    url: str, settings: Settings = RARELY, problems: Problems | None = None
) -> AsyncIterator[Collected]:
    """Run a batch source until the context ends; it is live when the context begins."""
    collected = Collected(BatchSource(url, settings, problems=problems))
    task = asyncio.create_task(collected.relay())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await collected.source.live()
        yield collected
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def reconnected(source: BatchSource, times: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while source.statistics().reconnections < times:
            await asyncio.sleep(0.01)


async def sessions_of_brain(connection: asyncpg.Connection) -> set[int]:
    return {
        row["pid"]
        for row in await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'brain'"
        )
    }


async def is_parked(connection: asyncpg.Connection) -> bool:
    """Return True if a node is parked on the database of `connection`."""
    return bool(
        await connection.fetchval(
            """
            SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 5221
                              AND objid = 2 AND mode = 'ShareLock'
                              AND database = (SELECT oid FROM pg_database
                                               WHERE datname = current_database()))
            """
        )
    )


async def parked(connection: asyncpg.Connection) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await is_parked(connection):
            await asyncio.sleep(0.01)


async def test_a_change_is_yielded_when_it_is_committed(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database) as collected:
        await parked(connection)
        await insert(connection, "a")

        assert await collected.keys(1) == ["a"]


async def test_changes_committed_before_the_start_are_not_yielded(
    database: str, connection: asyncpg.Connection
) -> None:
    await insert(connection, "before")
    async with listening(database) as collected:
        await insert(connection, "after")

        assert await collected.keys(1) == ["after"]


async def test_the_recent_past_comes_first_and_in_one_piece(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database) as collected:
        for id in ("a", "b"):
            await insert(connection, id)
            await collected.keys(1)
    async with listening(database) as later:
        assert later.past is not None
        assert collected.past is not None
        assert [key for key in keys_of(later.past) if key] == ["a", "b"]
        assert collected.past.cursor in later.past.ticks
        assert {event.cursor.tick for event in later.past.events} < {
            cursor.tick for cursor in later.past.ticks
        }
        assert later.past.cursor == later.past.ticks[-1] == later.source.statistics().cursor


async def test_what_lies_further_back_than_the_ring_is_left_to_the_log(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database) as collected:
        await insert(connection, "a")
        await collected.keys(1)
        await asyncio.sleep(0.3)
        await insert(connection, "b")
        await collected.keys(1)
    async with listening(database, Settings(idle_poll_seconds=60, ring_seconds=0.25)) as later:
        assert later.past is not None
        assert keys_of(later.past) in (["b"], [])


async def test_of_very_much_only_the_latest_is_read_at_the_start(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.listener.batch_source.MOST_RECENT", 4)
    async with listening(database) as collected:
        for id in "abcdefgh":
            await insert(connection, id)
            await collected.keys(1)
    async with listening(database) as later:
        assert later.past is not None
        assert keys_of(later.past) == list("defgh")

    await connection.execute("INSERT INTO tasks SELECT generate_series(1, 9)")
    async with listening(database) as one_transaction:
        assert one_transaction.past is not None
        assert keys_of(one_transaction.past) == list("23456789")
        await insert(connection, "z")
        assert (await one_transaction.keys(1)) == ["z"]


async def test_a_writer_that_looked_before_the_node_parked_is_read_without_a_notification(
    database: str, connection: asyncpg.Connection
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    await insert(connection, "looked before")
    async with listening(database) as collected:
        other = await asyncpg.connect(database)
        await parked(other)
        await insert(other, "notifies")
        assert await collected.keys(1) == ["notifies"]

        await transaction.commit()

        assert await collected.keys(1) == ["looked before"]
        await other.close()


async def test_fast_changes_make_a_node_busy_and_writers_do_not_notify(
    database: str, connection: asyncpg.Connection
) -> None:
    settings = Settings(idle_poll_seconds=60, busy_from_rate=20, calm_below_rate=10)
    async with listening(database, settings) as collected:
        await parked(connection)
        count = 0
        while not collected.source.statistics().is_busy:
            await insert(connection, f"fast {count}")
            assert await collected.keys(1) == [f"fast {count}"]
            count += 1
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await is_parked(connection):
                await insert(connection, f"fast {count}")
                assert await collected.keys(1) == [f"fast {count}"]
                count += 1

        await parked(connection)
        assert not collected.source.statistics().is_busy
        await insert(connection, "calm")
        assert await collected.keys(1) == ["calm"]


@pytest.mark.parametrize("which", ["LISTEN", "tick"])
async def test_after_a_terminated_connection_nothing_is_missing(
    database: str, connection: asyncpg.Connection, which: str
) -> None:
    async with listening(database) as collected:
        await parked(connection)
        for number in range(5):
            before = collected.source.statistics().reconnections
            ended = await connection.fetch(
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'brain'
                   AND pid <> pg_backend_pid()
                   AND ($1 = 'LISTEN') = (query ~ 'advisory_lock_shared|pg_listening|LISTEN')
                """,
                which,
            )
            assert ended
            await insert(connection, f"meanwhile {number}")
            await reconnected(collected.source, before + 1)
            await insert(connection, f"afterwards {number}")

            assert await collected.keys(2) == [f"meanwhile {number}", f"afterwards {number}"]
            await parked(connection)
        assert collected.is_empty


async def test_a_link_that_goes_dead_silently_is_noticed_and_nothing_is_missing(
    database: str, connection: asyncpg.Connection
) -> None:
    settings = Settings(idle_poll_seconds=0.2, database_timeout_seconds=0.3)
    async with proxy_to(database) as (url, proxy), listening(url, settings) as collected:
        await parked(connection)
        proxy.swallow()
        await insert(connection, "in the dark")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while collected.source.statistics().is_live:
                await asyncio.sleep(0.01)
        proxy.restore()

        assert await collected.keys(1) == ["in the dark"]


@pytest.mark.parametrize(
    ("timeout_seconds", "reason"), [(4, "due to lock timeout"), (0.3, "did not answer in time")]
)
async def test_a_query_that_fails_is_tried_again_over_the_same_connections(
    database: str,
    connection: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
    timeout_seconds: float,
    reason: str,
) -> None:
    problems = Problems()
    settings = Settings(idle_poll_seconds=0.05, database_timeout_seconds=timeout_seconds)
    async with listening(database, settings, problems) as collected:
        sessions = await sessions_of_brain(connection)
        async with connection.transaction():
            await connection.execute("LOCK TABLE brain.ticks")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while sum(problem.count for problem in problems.recent()) < 2:
                    await asyncio.sleep(0.01)
            await insert(connection, "while it was locked")

        assert await collected.keys(1) == ["while it was locked"]
        assert await sessions_of_brain(connection) == sessions
        assert collected.source.statistics().reconnections == 0
        async with asyncio.timeout(PATIENCE_SECONDS):
            await collected.source.live()

    (problem,) = problems.recent()
    assert problem.address == "log"
    assert problem.text.startswith("cannot be read, trying again: ")
    assert reason in problem.text
    assert [line for line in caplog.messages if "cannot" in line] == [f"log: {problem.text}"]


async def test_an_error_of_a_query_names_the_function_it_comes_from(
    database: str, connection: asyncpg.Connection
) -> None:
    problems = Problems()
    async with listening(database, Settings(idle_poll_seconds=0.05), problems):
        async with connection.transaction():
            await connection.execute("LOCK TABLE brain.ticks")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not problems.recent():
                    await asyncio.sleep(0.01)

    assert re.search(r"\((PL/pgSQL|SQL) function .*\)$", problems.recent()[0].text)


async def test_a_node_parks_anew_after_a_query_that_failed(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database, Settings(idle_poll_seconds=60)) as collected:
        await parked(connection)
        (locked,) = await connection.fetch(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 5221 AND objid = 2"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        async with connection.transaction():
            await connection.execute("LOCK TABLE brain.ticks")
            other = await asyncpg.connect(database)
            await other.execute("SELECT pg_notify('brain', '')")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await is_parked(other):
                    await asyncio.sleep(0.01)
        await parked(other)
        await insert(other, "afterwards")

        assert await collected.keys(1) == ["afterwards"]
        assert locked["pid"] in await sessions_of_brain(connection)
        await other.close()


async def remove(connection: asyncpg.Connection, statement: str) -> None:
    """Execute a statement, again if it meets a read that has locked what it needs."""
    while True:
        with suppress(asyncpg.DeadlockDetectedError):
            await connection.execute(statement)
            return


@pytest.mark.parametrize(
    ("removed", "missing"),
    [
        ("DROP SCHEMA brain CASCADE", "schema brain"),
        ("DROP TABLE brain.events CASCADE", "table brain.events"),
        ("DROP TABLE brain.ticks CASCADE", "table brain.ticks"),
        ("ALTER FUNCTION brain.newest RENAME TO elsewhere", "function brain.newest"),
        ("ALTER SCHEMA brain RENAME TO elsewhere", "schema brain"),
    ],
)
async def test_a_schema_that_was_dropped_ends_the_source(
    database: str,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    removed: str,
    missing: str,
) -> None:
    monkeypatch.setattr("brain.listener.batch_source.MISSING_SECONDS", 0.1)
    source = BatchSource(database, Settings(idle_poll_seconds=0.05))
    task = asyncio.create_task(Collected(source).relay())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await source.live()
        await remove(connection, removed)
        with pytest.raises(SchemaGone, match=f"^{missing} is gone .* run `brain migrate`$"):
            await task


async def test_what_is_missing_for_a_moment_is_not_gone(
    database: str, connection: asyncpg.Connection
) -> None:
    problems = Problems()
    async with listening(database, Settings(idle_poll_seconds=0.05), problems) as collected:
        await connection.execute("ALTER FUNCTION brain.newest RENAME TO elsewhere")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not problems.recent():
                await asyncio.sleep(0.01)
        await connection.execute("ALTER FUNCTION brain.elsewhere RENAME TO newest")
        for schema in every_schema():
            await connection.execute("DELETE FROM brain.schema_versions WHERE number = 0")
            await migrate(database, [schema])
        await insert(connection, "afterwards")

        assert await collected.keys(1) == ["afterwards"]
        assert collected.source.statistics().reconnections == 0


async def test_by_default_a_dead_link_is_noticed_within_ten_seconds() -> None:
    settings = Settings()

    assert settings.idle_poll_seconds + settings.database_timeout_seconds < 10


async def test_a_replaced_log_is_reported_as_a_gap_and_then_followed(
    database: str, connection: asyncpg.Connection
) -> None:
    async with listening(database) as collected:
        await insert(connection, "a")
        assert await collected.keys(1) == ["a"]
        async with connection.transaction():
            await connection.execute("SELECT brain.begin_history()")
            await insert(connection, "lost with the old history")

        lost = await collected.batch()
        assert (lost.events, lost.follows) == ((), False)

        await insert(connection, "b")
        assert await collected.keys(1) == ["b"]


async def test_two_nodes_yield_the_same_in_the_same_order(
    database: str, connection: asyncpg.Connection
) -> None:
    count = 200
    async with listening(database) as one, listening(database) as other:
        writers = [await asyncpg.connect(database) for _ in range(4)]

        async def write(number: int) -> None:
            for step in range(count // len(writers)):
                await insert(writers[number], f"{number}/{step}")

        await asyncio.gather(*map(write, range(len(writers))))
        keys = await one.keys(count)

        assert await other.keys(count) == keys
        assert len(set(keys)) == count
        for writer in writers:
            await writer.close()
