"""An operator's own rule of who may hear what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from brain.database.connection import opened_pool
from brain.database.rules import Rules
from tests.proxy import proxy_to

PATIENCE_SECONDS = 20.0
ASKED = {"tasks", "news", "secret"}


def rule(body: str) -> str:
    return (
        "CREATE OR REPLACE FUNCTION brain.may_hear(claims jsonb, channel text) RETURNS boolean"
        f" LANGUAGE plpgsql AS $$ BEGIN {body}; END $$"
    )


# Notes down how often it was asked for which channel.
BY_CLAIM = rule("INSERT INTO asked VALUES (channel); RETURN claims -> 'rooms' ? channel")


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with opened_pool(database) as pool:
        await pool.execute("CREATE TABLE asked (channel text)")
        yield pool


@pytest.fixture
async def rules(pool: asyncpg.Pool) -> Rules:
    return Rules(PATIENCE_SECONDS, pool)


async def hears(rules: Rules, *rooms: str) -> set[str]:
    return set(await rules.channels({"sub": "ann", "rooms": rooms}, ASKED))


async def test_there_is_one_when_there_is_the_function(pool: asyncpg.Pool, rules: Rules) -> None:
    await rules.look()
    assert not rules.is_replaced

    await pool.execute(BY_CLAIM)
    await rules.look()
    assert rules.is_replaced

    await pool.execute("DROP FUNCTION brain.may_hear")
    await rules.look()
    assert not rules.is_replaced


async def test_until_that_is_known_nothing_is_allowed(pool: asyncpg.Pool, rules: Rules) -> None:
    assert rules.is_replaced
    assert await hears(rules, "tasks") == set()


async def test_it_is_looked_for_again_and_again(
    pool: asyncpg.Pool, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.rules.LOOK_SECONDS", 0.01)
    following = asyncio.create_task(rules.follow(pool))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while rules.is_replaced:
            await asyncio.sleep(0.01)
        await pool.execute(BY_CLAIM)
        while not rules.is_replaced:
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.wait([following])


async def test_it_decides_by_the_claims_for_every_channel(pool: asyncpg.Pool, rules: Rules) -> None:
    await pool.execute(BY_CLAIM)

    assert await hears(rules, "tasks", "news", "else") == {"tasks", "news"}
    assert await hears(rules, "secret") == {"secret"}
    assert await hears(rules) == set()


@pytest.mark.parametrize(
    "body",
    [
        "RETURN NULL",
        "RETURN NULLIF(channel, 'tasks') = 'tasks'",
        "RETURN 1 / 0 = 1",
        "IF channel = 'news' THEN RAISE 'no'; END IF; RETURN true",
        "PERFORM pg_sleep(60); RETURN true",
    ],
    ids=["null", "null for one", "an error", "an error for one of them", "no answer in time"],
)
async def test_what_is_not_allowed_is_forbidden(
    pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    await pool.execute(rule(body))

    assert await hears(Rules(0.5, pool)) == set()
    assert ("means no" in caplog.text) == ("NULL" not in body)


async def test_a_function_that_cannot_be_asked_so_forbids_all(
    pool: asyncpg.Pool, rules: Rules
) -> None:
    for arguments, returns in (
        ("claims json, channel text", "boolean"),
        ("c jsonb, t text", "text"),
    ):
        await pool.execute(
            f"CREATE FUNCTION brain.may_hear({arguments}) RETURNS {returns}"
            " LANGUAGE sql AS 'SELECT true'"
            if returns == "boolean"
            else f"CREATE FUNCTION brain.may_hear({arguments}) RETURNS text LANGUAGE sql"
            " AS $$ SELECT 'true' $$"
        )
        await rules.look()
        assert rules.is_replaced
        assert await hears(rules) == set()
        await pool.execute(f"DROP FUNCTION brain.may_hear({arguments})")


async def test_what_cannot_be_said_in_the_database_is_forbidden(
    pool: asyncpg.Pool, rules: Rules
) -> None:
    await pool.execute(rule("RETURN true"))

    assert await rules.channels({}, {"a\0b"}) == frozenset()
    assert await rules.channels({}, {"a\ud800b"}) == frozenset()
    assert await rules.channels({"sub": "a\0b"}, {"tasks"}) == frozenset()
    assert await rules.channels({"sub": object()}, {"tasks"}) == frozenset()
    assert await rules.channels({}, {"tasks"}) == {"tasks"}
    assert await rules.channels({}, ()) == frozenset()


async def test_an_answer_holds_for_a_while(
    pool: asyncpg.Pool, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.rules.KEEP_SECONDS", 1000.0)
    await pool.execute(BY_CLAIM)
    for _ in range(3):
        assert await hears(rules, "tasks") == {"tasks"}
    assert await asked(pool) == 3

    assert await hears(rules, "news") == {"news"}
    assert await rules.channels({"rooms": ["tasks"], "sub": "ann"}, ASKED) == {"tasks"}
    assert await rules.channels({"rooms": ["tasks"], "sub": "ann"}, {"tasks"}) == {"tasks"}
    assert await asked(pool) == 7


async def test_an_answer_that_is_too_old_is_asked_for_again(
    pool: asyncpg.Pool, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.rules.KEEP_SECONDS", 0.0)
    await pool.execute(BY_CLAIM)
    for _ in range(3):
        await hears(rules, "tasks")

    assert await asked(pool) == 9


async def test_no_answer_of_a_former_rule_is_kept(
    pool: asyncpg.Pool, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.rules.KEEP_SECONDS", 1000.0)
    await pool.execute(rule("RETURN true"))
    await rules.look()
    assert await hears(rules) == ASKED

    await pool.execute(rule("RETURN false"))
    await rules.look()
    assert await hears(rules) == set()


async def test_few_answers_are_kept(
    pool: asyncpg.Pool, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.rules.KEEP_SECONDS", 1000.0)
    monkeypatch.setattr("brain.database.rules.MOST_KEPT", 2)
    await pool.execute(BY_CLAIM)
    for room in ("tasks", "news", "secret", "secret", "news", "tasks"):
        await hears(rules, room)

    assert await asked(pool) == 4 * len(ASKED)


async def test_who_asks_the_same_at_once_is_answered_by_one_question(
    pool: asyncpg.Pool, rules: Rules
) -> None:
    await pool.execute(BY_CLAIM)

    answers = await asyncio.gather(*(hears(rules, "tasks") for _ in range(50)))
    assert answers == [{"tasks"}] * 50
    assert await asked(pool) == len(ASKED)


async def test_a_slow_rule_leaves_connections_to_others(pool: asyncpg.Pool, database: str) -> None:
    await pool.execute(rule("PERFORM pg_advisory_xact_lock_shared(1); RETURN true"))
    other = await asyncpg.connect(database)
    await other.execute("SELECT pg_advisory_lock(1)")
    rules = Rules(PATIENCE_SECONDS, pool)
    asking = [asyncio.create_task(hears(rules, str(number))) for number in range(20)]

    async with asyncio.timeout(PATIENCE_SECONDS / 2):
        assert await pool.fetchval("SELECT 1") == 1
        await asyncio.gather(*(pool.fetchval("SELECT pg_sleep(0.01)") for _ in range(4)))
    await other.close()
    assert await asyncio.gather(*asking) == [ASKED] * 20


async def test_without_the_database_nothing_is_allowed_and_what_was_known_holds(
    database: str, pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    await pool.execute(rule("RETURN true"))
    async with proxy_to(database) as (url, proxy), opened_pool(url) as cut_off:
        rules = Rules(0.5, cut_off)
        await rules.look()
        proxy.swallow()

        assert await hears(rules) == set()
        await rules.look()
        assert rules.is_replaced
        assert "means no" in caplog.text
        proxy.restore()


async def asked(pool: asyncpg.Pool) -> int:
    """Return for how many channels the rule was asked."""
    return int(await pool.fetchval("SELECT count(*) FROM asked"))
