"""No order of calls loses a wake-up on a real PostgreSQL: every order is tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack

import asyncpg
import pytest

from brain.database.connection import connected
from brain.database.log import Log
from tests.database.log_reading import events_after
from tests.listener import mutated_nodes, test_notification_model
from tests.listener.interleavings import merges, replayed
from tests.listener.notification_model import Model, WriterStep
from tests.listener.stepped_node import SteppedSource, following
from tests.tasks import insert

# A writer [b]egins by taking its transaction id, [w]rites and looks for parked nodes in one
# statement, and [c]ommits. Another has [s]tarted its statement, which is held up before its first
# row and has no id so far.
WRITES, BEGINS_EARLY, IS_HELD_UP = "wc", "bwc", "swc"
# The [n]ode listens, reads, parks, begins its transaction, reads, checks, reads, sleeps.
ONCE_ASLEEP = "n" * 8
# It is busy after its first and its third read, so it parks twice.
TWICE_PARKED, BUSY_READS = "n" * 14, {1, 3}

GATE = """
    CREATE FUNCTION pass_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(1);
        RETURN NULL;
    END $$;
    CREATE TRIGGER "~gate" BEFORE UPDATE ON tasks FOR EACH STATEMENT EXECUTE FUNCTION pass_gate();
"""


class Writer:
    """An application that changes a task."""

    def __init__(self, number: int, session: asyncpg.Connection) -> None:
        self._name = f"writer {number}"
        self._session = session
        self._statement: asyncio.Task[str] | None = None

    async def step(self, step: str, gatekeeper: asyncpg.Connection) -> list[str]:
        """Take a step; return its moves, in the words of the model."""
        change = f"UPDATE tasks SET progress = progress + 1 WHERE id = '{self._name}'"
        has_begun = self._session.is_in_transaction()
        moves: list[str] = []
        if step == "s":
            await self._start(f"BEGIN; {change}", gatekeeper)
        elif step == "b":
            await self._session.execute("BEGIN; SELECT pg_current_xact_id()")
            moves = [WriterStep.BEGIN]
        elif step == "c":
            await self._session.execute("COMMIT")
            moves = ["commits"]
        else:
            await self._change(change if has_begun else f"BEGIN; {change}", gatekeeper)
            moves = [WriterStep.WRITE, WriterStep.LOOK]
            moves = moves if has_begun else [WriterStep.BEGIN, *moves]
        return [f"{self._name} {done}" for done in moves]

    async def _start(self, statement: str, gatekeeper: asyncpg.Connection) -> None:
        await gatekeeper.execute("SELECT pg_advisory_lock(1)")
        self._statement = asyncio.create_task(self._session.execute(statement))
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not await gatekeeper.fetchval(waiting):
            await asyncio.sleep(0)

    async def _change(self, statement: str, gatekeeper: asyncpg.Connection) -> None:
        if self._statement is None:
            await self._session.execute(statement)
        else:
            await gatekeeper.execute("SELECT pg_advisory_unlock(1)")
            await self._statement
            self._statement = None


class Stage:
    """A node and its writers, with sessions that are reused for one order after another."""

    def __init__(self, *sessions: asyncpg.Connection) -> None:
        self._listening, self._reading, writing, older, self._gatekeeper = sessions
        self._writer, self._older = Writer(1, writing), Writer(2, older)
        self._log = Log(self._gatekeeper, timeout_seconds=10)
        self.moves: list[str] = []
        """The moves of the last order, in the words of the model."""

    async def loses(
        self,
        order: str,
        node: type[SteppedSource] = SteppedSource,
        *,
        busy_reads: Collection[int] = (),
        beside_older: bool = False,
    ) -> bool:
        """
        Run one order; return True if the node then sleeps with a committed row unread.

        With `beside_older`, another transaction looks for parked nodes before the order and
        commits after it.
        """
        self.moves = await self._older.step("w", self._gatekeeper) if beside_older else []
        source = node(self._listening, self._reading, busy_reads)
        async with following(source, self._listening):
            for step in order:
                await self._step(source, step)
            if beside_older:
                await self._write(source, self._older, "c")
            while not source.turns.is_asleep:
                await self._step(source, "n")
            cursor = source.statistics().cursor
            assert cursor is not None
            return bool(await events_after(self._log, cursor))

    async def _step(self, source: SteppedSource, step: str) -> None:
        if step == "n":
            await source.step()
            self.moves += source.news()
        else:
            await self._write(source, self._writer, step)

    async def _write(self, source: SteppedSource, writer: Writer, step: str) -> None:
        self.moves += await writer.step(step, self._gatekeeper)
        await source.receive()
        self.moves += source.news()


@pytest.fixture
async def stage(database: str, connection: asyncpg.Connection) -> AsyncIterator[Stage]:
    await insert(connection, "writer 1", "writer 2")
    async with AsyncExitStack() as stack:
        node = [await stack.enter_async_context(connected(database)) for _ in range(2)]
        applications = [await asyncpg.connect(database) for _ in range(3)]
        for application in applications:
            stack.push_async_callback(application.close)
        yield Stage(*node, *applications)


def model_loses(model: type[Model], moves: list[str]) -> bool:
    """Return True if these moves, which the model must allow, lose a wake-up in it."""
    writers = 1 + any(move.startswith("writer 2") for move in moves)
    protocol = model(has_others=True, flushes=True)
    worlds = filter(protocol.is_quiet, replayed(protocol, writers, moves))
    losses = {world.nodes[0].unread for world in worlds}
    assert len(losses) == 1, "\n".join(moves)
    return losses.pop()


MUTANTS = [
    "SleepsAtOnce",
    "TrustsTheXmax",
    "BeginsBeforeItParks",
    "DoesNotReadOnceMore",
    "ParksAfterItsLastRead",
    "ListensAfterItsLastRead",
    "ForgetsANotification",
]


@pytest.mark.parametrize("beside_older", [False, True], ids=["alone", "beside an older one"])
async def test_no_order_of_a_write_and_a_node_that_parks_loses_it(
    stage: Stage, beside_older: bool
) -> None:
    for order in merges(ONCE_ASLEEP, BEGINS_EARLY):
        assert not await stage.loses(order, beside_older=beside_older), "\n".join(stage.moves)
        assert not model_loses(Model, stage.moves)


async def test_no_order_of_a_write_and_a_node_that_was_busy_in_between_loses_it(
    stage: Stage,
) -> None:
    for order in merges(TWICE_PARKED, WRITES):
        assert not await stage.loses(order, busy_reads=BUSY_READS), "\n".join(stage.moves)
        assert not model_loses(Model, stage.moves)


@pytest.mark.postgres_versions
async def test_no_order_of_a_statement_that_is_held_up_and_a_node_that_parks_loses_it(
    stage: Stage, connection: asyncpg.Connection
) -> None:
    await connection.execute(GATE)
    for order in merges(ONCE_ASLEEP, IS_HELD_UP):
        assert not await stage.loses(order), "\n".join(stage.moves)
        assert not model_loses(Model, stage.moves)


LOOK_BEFORE = """
    CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF {look} THEN PERFORM pg_notify('brain', ''); END IF; RETURN NULL; END $$;
    CREATE TRIGGER a_look BEFORE INSERT OR UPDATE ON tasks EXECUTE FUNCTION look();
"""


async def test_a_statement_that_looks_before_its_first_row_is_lost_in_some_order(
    stage: Stage, connection: asyncpg.Connection
) -> None:
    capture = await connection.fetchval("SELECT pg_get_functiondef('brain.capture_1'::regproc)")
    look = await connection.fetchval("SELECT brain.node_is_parked()")
    assert capture.count(look) == 1
    await connection.execute(capture.replace(look, "false"))
    await connection.execute(LOOK_BEFORE.format(look=look))
    await connection.execute(GATE)

    assert any([await stage.loses(order) for order in merges(ONCE_ASLEEP, IS_HELD_UP)])


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_node_without_one_of_its_rules_loses_what_the_model_loses(
    stage: Stage, mutant: str
) -> None:
    node, model = getattr(mutated_nodes, mutant), getattr(test_notification_model, mutant)
    lost = []
    for order in merges(ONCE_ASLEEP, WRITES):
        loses = await stage.loses(order, node)
        assert model_loses(model, stage.moves) == loses, "\n".join(stage.moves)
        if loses:
            lost.append((order, stage.moves))
    print(mutant, f"loses {len(lost)} orders, such as", *lost[0][1], sep="\n  ")

    assert lost
