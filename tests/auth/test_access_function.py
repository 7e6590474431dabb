"""The operator's own access function, `brain.may_read`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest

from brain.auth.access_function import AccessFunction
from brain.database.budget import SLOW_PLACES
from brain.database.connection import connected, opened_pool
from brain.errors import AccessUndecided
from tests.database.locks import becomes, locked
from tests.proxy import proxy_to

pytestmark = pytest.mark.postgres_versions

PATIENCE_SECONDS = 20.0
CHANNELS = {"tasks", "news", "secret"}


def definition(body: str) -> str:
    return (
        "CREATE OR REPLACE FUNCTION brain.may_read(claims jsonb, channel text) RETURNS boolean"
        f" LANGUAGE plpgsql SET search_path = public AS $$ BEGIN {body}; END $$"
    )


RUNS = """
    SELECT count(*) > 0 FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event = 'PgSleep'
"""

# Records each call in the table `asked`.
BY_CLAIM = definition("INSERT INTO asked VALUES (channel); RETURN claims -> 'rooms' ? channel")


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with opened_pool(database) as pool:
        await pool.execute("CREATE TABLE public.asked (channel text)")
        yield pool


@pytest.fixture
async def access_function(pool: asyncpg.Pool) -> AccessFunction:
    return AccessFunction(PATIENCE_SECONDS, pool)


async def readable(access_function: AccessFunction, *rooms: str) -> set[str]:
    return set(await access_function.channels({"sub": "ann", "rooms": rooms}, CHANNELS))


async def test_the_access_function_decides_while_it_exists(
    pool: asyncpg.Pool, access_function: AccessFunction
) -> None:
    await access_function.look()
    assert not access_function.is_replaced

    await pool.execute(BY_CLAIM)
    await access_function.look()
    assert access_function.is_replaced

    await pool.execute("DROP FUNCTION brain.may_read")
    await access_function.look()
    assert not access_function.is_replaced


async def test_until_its_existence_is_known_nothing_is_readable(
    pool: asyncpg.Pool, access_function: AccessFunction
) -> None:
    assert access_function.is_replaced
    assert await readable(access_function, "tasks") == set()


async def test_the_access_function_is_looked_for_repeatedly(
    pool: asyncpg.Pool, access_function: AccessFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.auth.access_function.LOOK_SECONDS", 0.01)
    following = asyncio.create_task(access_function.follow(pool))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while access_function.is_replaced:
            await asyncio.sleep(0.01)
        await pool.execute(BY_CLAIM)
        while not access_function.is_replaced:
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.wait([following])


async def test_the_access_function_decides_by_the_claims_for_every_channel(
    pool: asyncpg.Pool, access_function: AccessFunction
) -> None:
    await pool.execute(BY_CLAIM)

    assert await readable(access_function, "tasks", "news", "else") == {"tasks", "news"}
    assert await readable(access_function, "secret") == {"secret"}
    assert await readable(access_function) == set()


@pytest.mark.parametrize(
    "body",
    [
        "RETURN NULL",
        "RETURN NULLIF(channel, 'tasks') = 'tasks'",
        "RETURN 1 / 0 = 1",
        "IF channel = 'news' THEN RAISE 'no'; END IF; RETURN true",
    ],
    ids=["null", "null for one", "an error", "an error for one of them"],
)
async def test_a_channel_is_unreadable_unless_the_function_returns_true(
    pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    await pool.execute(definition(body))

    assert await readable(AccessFunction(PATIENCE_SECONDS, pool)) == set()
    assert ("denies access" in caplog.text) == ("NULL" not in body)


@pytest.mark.parametrize(
    "body",
    ["PERFORM pg_sleep(60); RETURN true", "SET lock_timeout = 1; LOCK asked; RETURN true"],
    ids=["no answer in time", "an error of the server"],
)
async def test_nothing_is_decided_while_the_function_cannot_be_called_to_its_end(
    pool: asyncpg.Pool, database: str, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    await pool.execute(definition(body))
    async with connected(database) as other, other.transaction():
        await other.execute("LOCK TABLE public.asked")

        for _ in range(2):
            with pytest.raises(AccessUndecided):
                await readable(AccessFunction(0.5, pool))
    assert "refuses clients" in caplog.text


async def test_a_function_with_another_signature_denies_everything(
    pool: asyncpg.Pool, access_function: AccessFunction
) -> None:
    for arguments, returns in (
        ("claims json, channel text", "boolean"),
        ("c jsonb, t text", "text"),
    ):
        await pool.execute(
            f"CREATE FUNCTION brain.may_read({arguments}) RETURNS {returns}"
            " LANGUAGE sql AS 'SELECT true'"
            if returns == "boolean"
            else f"CREATE FUNCTION brain.may_read({arguments}) RETURNS text LANGUAGE sql"
            " AS $$ SELECT 'true' $$"
        )
        await access_function.look()
        assert access_function.is_replaced
        assert await readable(access_function) == set()
        await pool.execute(f"DROP FUNCTION brain.may_read({arguments})")


async def test_a_channel_or_claim_that_postgresql_cannot_hold_is_denied(
    pool: asyncpg.Pool, access_function: AccessFunction
) -> None:
    await pool.execute(definition("RETURN true"))

    assert await access_function.channels({}, {"a\0b"}) == frozenset()
    assert await access_function.channels({}, {"a\ud800b"}) == frozenset()
    assert await access_function.channels({"sub": "a\0b"}, {"tasks"}) == frozenset()
    assert await access_function.channels({"sub": object()}, {"tasks"}) == frozenset()
    assert await access_function.channels({}, {"tasks"}) == {"tasks"}
    assert await access_function.channels({}, ()) == frozenset()


async def test_a_result_is_cached_for_a_while(
    pool: asyncpg.Pool, access_function: AccessFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.auth.access_function.KEEP_SECONDS", 1000.0)
    await pool.execute(BY_CLAIM)
    for _ in range(3):
        assert await readable(access_function, "tasks") == {"tasks"}
    assert await calls(pool) == 3

    assert await readable(access_function, "news") == {"news"}
    assert await access_function.channels({"rooms": ["tasks"], "sub": "ann"}, CHANNELS) == {"tasks"}
    assert await access_function.channels({"rooms": ["tasks"], "sub": "ann"}, {"tasks"}) == {
        "tasks"
    }
    assert await calls(pool) == 7


async def test_an_expired_result_is_queried_again(
    pool: asyncpg.Pool, access_function: AccessFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.auth.access_function.KEEP_SECONDS", 0.0)
    await pool.execute(BY_CLAIM)
    for _ in range(3):
        await readable(access_function, "tasks")

    assert await calls(pool) == 9


async def test_a_replaced_function_clears_the_cache(
    pool: asyncpg.Pool, access_function: AccessFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.auth.access_function.KEEP_SECONDS", 1000.0)
    await pool.execute(definition("RETURN true"))
    await access_function.look()
    assert await readable(access_function) == CHANNELS

    await pool.execute(definition("RETURN false"))
    await access_function.look()
    assert await readable(access_function) == set()


async def test_the_cache_is_bounded(
    pool: asyncpg.Pool, access_function: AccessFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.auth.access_function.KEEP_SECONDS", 1000.0)
    monkeypatch.setattr("brain.auth.access_function.MOST_KEPT", 2)
    await pool.execute(BY_CLAIM)
    for room in ("tasks", "news", "secret", "secret", "news", "tasks"):
        await readable(access_function, room)

    assert await calls(pool) == 4 * len(CHANNELS)


async def test_equal_questions_at_the_same_time_share_one_query(
    pool: asyncpg.Pool, access_function: AccessFunction
) -> None:
    await pool.execute(BY_CLAIM)

    answers = await asyncio.gather(*(readable(access_function, "tasks") for _ in range(50)))
    assert answers == [{"tasks"}] * 50
    assert await calls(pool) == len(CHANNELS)


async def test_a_slow_function_leaves_pool_connections_to_others(
    pool: asyncpg.Pool, database: str
) -> None:
    await pool.execute(definition("PERFORM pg_advisory_xact_lock_shared(1); RETURN true"))
    other = await asyncpg.connect(database)
    await other.execute("SELECT pg_advisory_lock(1)")
    access_function = AccessFunction(PATIENCE_SECONDS, pool)
    reads = [asyncio.create_task(readable(access_function, str(number))) for number in range(20)]

    async with asyncio.timeout(PATIENCE_SECONDS / 2):
        assert await pool.fetchval("SELECT 1") == 1
        await asyncio.gather(*(pool.fetchval("SELECT pg_sleep(0.01)") for _ in range(4)))
    await other.close()
    assert await asyncio.gather(*reads) == [CHANNELS] * 20


async def test_a_function_that_is_slow_for_some_holds_up_nobody_else(
    pool: asyncpg.Pool, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.budget.FIRST_SECONDS", 0.1)
    await pool.execute(
        definition("IF claims ->> 'sub' <> 'ann' THEN PERFORM pg_sleep(90); END IF; RETURN true")
    )
    access_function = AccessFunction(PATIENCE_SECONDS, pool)
    slow = [
        asyncio.create_task(access_function.channels({"sub": f"user {number}"}, CHANNELS))
        for number in range(10)
    ]
    sleeping = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    other = await asyncpg.connect(database)

    async def are_in_the_slow_lane() -> bool:
        number = await other.fetchval(f"SELECT count(*) {sleeping}")
        return number == SLOW_PLACES and len(access_function._lanes._slow_names) == 10

    await becomes(are_in_the_slow_lane)
    for room in ("tasks", "news", "secret"):
        assert await readable(access_function, room) == CHANNELS
    assert not any(task.done() for task in slow)

    while not all(task.done() for task in slow):
        await other.execute(f"SELECT pg_cancel_backend(pid) {sleeping}")
        await asyncio.sleep(0.01)
    await other.close()
    assert all(isinstance(task.exception(), AccessUndecided) for task in slow)


async def test_a_function_that_meets_a_lock_for_some_holds_up_nobody_else(
    pool: asyncpg.Pool, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_SECONDS", "LOCK_SECONDS"):
        monkeypatch.setattr(f"brain.database.budget.{name}", PATIENCE_SECONDS)
    await pool.execute("CREATE TABLE public.members (name text)")
    await pool.execute(
        definition("IF claims ->> 'sub' <> 'ann' THEN PERFORM FROM members; END IF; RETURN true")
    )
    access_function = AccessFunction(PATIENCE_SECONDS, pool)
    async with locked(database, "members"):
        waiting = [
            asyncio.create_task(access_function.channels({"sub": f"user {number}"}, CHANNELS))
            for number in range(30)
        ]
        for room in ("tasks", "news", "secret"):
            assert await readable(access_function, room) == CHANNELS
        assert not any(task.done() for task in waiting)
    assert await asyncio.gather(*waiting) == [CHANNELS] * 30


async def test_without_the_database_nothing_is_decided_and_its_existence_stays_known(
    database: str, pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    await pool.execute(definition("RETURN true"))
    async with proxy_to(database) as (url, proxy), opened_pool(url) as cut_off:
        access_function = AccessFunction(0.5, cut_off)
        await access_function.look()
        proxy.swallow()

        with pytest.raises(AccessUndecided):
            await readable(access_function)
        await access_function.look()
        assert access_function.is_replaced
        assert "refuses clients" in caplog.text
        proxy.restore()


async def test_a_call_that_began_before_the_function_changed_is_no_answer_after_it(
    pool: asyncpg.Pool, access_function: AccessFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.budget.FIRST_SECONDS", PATIENCE_SECONDS)
    until_asked = "WHILE NOT EXISTS (SELECT FROM asked) LOOP PERFORM pg_sleep(0.01); END LOOP"
    await pool.execute(definition(f"{until_asked}; RETURN true"))
    await access_function.look()
    former = asyncio.create_task(readable(access_function))
    await becomes(partial(pool.fetchval, RUNS))
    await pool.execute(definition("RETURN false"))
    await access_function.look()

    assert await readable(access_function) == set()
    await pool.execute("INSERT INTO public.asked VALUES ('tasks')")
    assert await former == CHANNELS
    assert await readable(access_function) == set()


async def calls(pool: asyncpg.Pool) -> int:
    """Return the number of calls of the access function, one per channel."""
    return int(await pool.fetchval("SELECT count(*) FROM public.asked"))
