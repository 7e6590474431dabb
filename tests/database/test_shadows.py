"""Functions and operators that shadow PostgreSQL's run only with the rights of their author."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from brain.database import retention
from brain.database.connection import connected, opened_pool
from brain.database.log import Log
from brain.database.snapshot import SnapshotReader
from brain.database.table_access import TableAccess
from brain.message.event import Event, Operation
from tests.database.log_reading import events_after, keys, parsed
from tests.database.shadows import TEMPORARY, cast_shadows, notes
from tests.database.stranger import Stranger, strange

pytestmark = pytest.mark.postgres_versions

HOSTILE = TEMPORARY + "SET search_path = own, pg_catalog, public, pg_temp;"
INSERT = "INSERT INTO public.things VALUES (1, 2, 'a', '{\"b\": 3}', 'c', '2026-01-01 00:00+00')"
DATA = {"id": 1, "number": 2, "name": "a", "document": {"b": 3}, "letter": "c"}
AT = {"at": "2026-01-01T00:00:00+00:00"}

# Statements, each with the events that it logs: operation, key, data, old.
EventParts = tuple[Operation, object, object, object]
CHANGES: dict[str, list[EventParts]] = {
    INSERT: [(Operation.INSERT, [1], DATA | AT, None)],
    "UPDATE public.things SET number = 4, letter = 'd'": [
        (
            Operation.UPDATE,
            [1],
            DATA | AT | {"number": 4, "letter": "d"},
            DATA | AT,
        )
    ],
    "UPDATE public.things SET secret = 'x'": [],
    "UPDATE public.things SET id = 5": [
        (Operation.DELETE, [1], None, DATA | AT),
        (Operation.UPDATE, [5], DATA | AT | {"id": 5}, DATA | AT),
    ],
    "DELETE FROM public.things": [(Operation.DELETE, [1], None, DATA | AT)],
    "TRUNCATE public.things": [(Operation.TRUNCATE, None, None, None)],
}


@pytest.fixture
async def stranger(postgres: str, database: str) -> AsyncIterator[Stranger]:
    async with strange(postgres, database) as stranger:
        yield stranger


def parts_of(events: list[Event]) -> list[EventParts]:
    return [
        (event.operation, parsed(event.key), parsed(event.data), parsed(event.old))
        for event in events
    ]


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def set_up(stranger: Stranger) -> None:
    await cast_shadows(await stranger.session(), "own")


async def test_the_shadows_run_where_names_are_not_qualified(stranger: Stranger) -> None:
    await set_up(stranger)
    session = await stranger.session()

    await session.execute(HOSTILE + "SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text")
    await session.execute("SELECT format('%s', 1), '1'::jsonb, clock_timestamp()")

    found = await notes(stranger.admin, "own")
    assert {what for what, _ in found} == {"=", "format", "type jsonb", "clock_timestamp"}
    assert {role for _, role in found} == {stranger.role}


@pytest.mark.parametrize("change", CHANGES)
async def test_no_shadow_runs_for_the_event_of_a_change(stranger: Stranger, change: str) -> None:
    await set_up(stranger)
    if change != INSERT:
        await stranger.admin.execute(INSERT)

    assert parts_of(await stranger.events(HOSTILE + change)) == CHANGES[change]
    assert await notes(stranger.admin, "own") == set()


EACH = """
    UPDATE public.things SET number = 3;
    UPDATE public.things SET id = 2;
    DELETE FROM public.things;
    INSERT INTO public.things (id, number) VALUES (1, 2);
"""


@pytest.mark.parametrize("path", [HOSTILE, ""], ids=["hostile", "as it was"])
@pytest.mark.parametrize(
    "alteration", ["RENAME name TO title", "DROP name", "ALTER name TYPE int USING 1"]
)
async def test_no_shadow_falls_on_a_table_that_was_altered(
    stranger: Stranger, alteration: str, path: str
) -> None:
    await set_up(stranger)
    await stranger.admin.execute(INSERT)
    session, owner = await stranger.session(), await stranger.owner()
    await session.execute("UPDATE public.things SET number = 3; DELETE FROM public.things")
    await session.execute(INSERT)
    await owner.execute(f"ALTER TABLE public.things {alteration}")
    async with connected(stranger.admin_url) as connection:
        log = Log(connection, timeout_seconds=10)
        start = await log.tick()
        # In a session that wrote to the table before, and in a new one.
        for writer in (session, await stranger.session()):
            await writer.execute(path + EACH)
        events = await events_after(log, start)

    assert "".join(event.operation.value for event in events) == "UDUDI" * 2
    assert keys(events) == [[1], [1], [2], [2], [1]] * 2
    assert [event.data and parsed(event.data)["number"] for event in events] == [
        3,
        None,
        3,
        None,
        2,
    ] * 2
    assert await notes(stranger.admin, "own") == set()


async def test_no_shadow_runs_for_a_published_message(stranger: Stranger) -> None:
    await set_up(stranger)
    await stranger.let_publish()

    (event,) = await stranger.events(
        HOSTILE + "SELECT brain.publish('news', 'written', '{\"a\": 1}')"
    )

    assert (event.channel, event.type, parsed(event.data)) == ("news", "written", {"a": 1})
    assert {what for what, _ in await notes(stranger.admin, "own")} <= {"type jsonb"}
    assert {role for _, role in await notes(stranger.admin, "own")} <= {stranger.role}


async def test_no_shadow_runs_in_a_trigger_that_runs_with_the_writers_rights(
    stranger: Stranger,
) -> None:
    await set_up(stranger)

    await stranger.events(
        HOSTILE + "INSERT INTO public.tasks (id, payload) VALUES ('a', '{\"current_step\": 3}')",
        HOSTILE + "UPDATE public.tasks SET status = 'running'",
    )

    assert await notes(stranger.admin, "own") == set()


# A call with an argument of unknown type resolves to the overload that takes text.
MAKE_INTERVAL = """
    CREATE FUNCTION public.make_interval(secs text) RETURNS interval LANGUAGE plpgsql AS
    $$ BEGIN PERFORM public.note('make_interval'); RETURN '1 day'; END $$;
"""


async def test_brain_runs_nothing_that_others_put_into_public(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stranger.admin.execute(f"GRANT CREATE ON SCHEMA public TO {stranger.role}")
    session = await stranger.session()
    await cast_shadows(session, "public")
    await session.execute(MAKE_INTERVAL)
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0.01)

    await read_and_watch(stranger)
    async with opened_pool(stranger.admin_url) as pool, AsyncExitStack() as stack:
        await SnapshotReader(TableAccess(2**20)).read(pool, frozenset({"others"}))
        trimming = asyncio.create_task(retention.trim_log(pool, 0))
        stack.push_async_callback(ended, trimming)
        async with asyncio.timeout(20):
            while await stranger.admin.fetchval("SELECT count(*) FROM brain.events"):
                await asyncio.sleep(0.01)
            while not await stranger.admin.fetchval("SELECT number FROM brain.current_block"):
                await session.execute("INSERT INTO things (id) SELECT max(id) + 1 FROM things")

    found = await notes(stranger.admin, "public")
    assert {role for _, role in found} <= {stranger.role}


async def read_and_watch(stranger: Stranger) -> None:
    """Run once each statement that Brain runs over a connection of its own."""
    async with connected(stranger.admin_url) as connection:
        log = Log(connection, timeout_seconds=10)
        start = await log.tick()
        await connection.execute(
            "SELECT brain.watch('public.things', 'others', '{id,name}');"
            "SELECT brain.publish('a', 'b')"
        )
        await connection.execute(INSERT.replace("'a'", f"'{'x' * 300_000}'"))
        assert [event.channel for event in await events_after(log, start)] == [
            *("brain.watches", "a", "others")
        ]
        await connection.execute(
            "SELECT * FROM brain.watches; SELECT brain.unwatch('public.tasks')"
        )


async def test_a_trigger_with_the_writers_search_path_would_be_found(stranger: Stranger) -> None:
    await set_up(stranger)
    watch = await stranger.admin.fetchval("SELECT max(id) FROM brain.watched")
    await stranger.admin.execute(f"ALTER FUNCTION brain.capture_{watch} RESET search_path")

    await stranger.events(HOSTILE + INSERT)

    found = await notes(stranger.admin, "own")
    assert {"=", "<=", "json_build_array", "clock_timestamp"} <= {what for what, _ in found}
    assert {role for _, role in found} == {"brain_owner"}
