from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import jwt
import pytest
from pydantic import SecretStr

from brain.doctor import access, event, nodes, token, websocket
from brain.doctor.finding import Finding
from brain.doctor.runner import run
from brain.settings import Settings
from tests.doctor.examining import found, request
from tests.end_to_end.brain import RunningBrain

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    return {"BRAIN_JWT_SECRET": SECRET, "BRAIN_PUBLIC_CHANNELS": "news fence"}


@pytest.fixture
async def orders(core_connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database with the watched table `orders`."""
    await core_connection.execute("CREATE TABLE orders (id int PRIMARY KEY, customer_id text)")
    await core_connection.execute("SELECT brain.watch('orders', 'orders', '{id,customer_id}')")
    yield core_connection


def signed(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "exp": time.time() + 600, **claims}, SECRET)


def settings_with(**members: Any) -> Settings:
    return Settings(**{"jwt_secret": SecretStr(SECRET), **members})


async def granted(database: str, given: str | None, channel: str, **settings: Any) -> Finding:
    return await found(
        access.granted,
        settings=settings_with(**settings),
        token=given,
        channels=[channel],
        database_url=database,
    )


async def test_without_a_channel_it_says_what_to_pass(core_database: str) -> None:
    finding = await found(access.channel, database_url=core_database)

    assert finding.verdict == "not checked"
    assert "--channel" in str(finding.way_out)


async def test_a_channel_without_a_table_is_a_warning_with_the_one_that_is_near(
    orders: asyncpg.Connection, core_database: str
) -> None:
    there = await found(access.channel, channels=["orders", "orders:7"], database_url=core_database)
    near = await found(access.channel, channels=["order"], database_url=core_database)

    assert there.verdict == "ok"
    assert near.verdict == "warning"
    assert "is it orders?" in str(near.way_out)


async def test_the_claim_channels_decides_and_is_named(core_database: str) -> None:
    allowed = await granted(core_database, signed(channels=["orders"]), "orders:7")
    denied = await granted(core_database, signed(channels=["orders"]), "customers")

    assert allowed.verdict == "ok"
    assert denied.verdict == "failure"
    assert "the claim channels of the token is orders" in denied.text
    assert "customers in the claim channels" in str(denied.way_out)


async def test_the_settings_decide_without_that_claim_or_without_a_token(
    core_database: str,
) -> None:
    default = await granted(core_database, signed(), "orders", default_channels=("news",))
    public = await granted(core_database, None, "orders", public_channels=("news",))
    internal = await granted(core_database, signed(), "brain.watches")

    assert [each.verdict for each in (default, public, internal)] == ["failure"] * 3
    assert "BRAIN_DEFAULT_CHANNELS is news" in default.text
    assert "BRAIN_PUBLIC_CHANNELS is news" in public.text
    assert "nobody may read" in internal.text


FUNCTIONS = [
    ("SELECT channel = 'orders'", "orders", "ok", ""),
    ("SELECT channel = 'orders'", "customers", "failure", "does not return true"),
    ("SELECT 1 / 0 = 1", "orders", "failure", "brain.may_read fails: division by zero"),
]


@pytest.mark.parametrize(("body", "channel", "verdict", "text"), FUNCTIONS)
async def test_an_access_function_decides_in_place_of_claims(
    core_connection: asyncpg.Connection,
    core_database: str,
    body: str,
    channel: str,
    verdict: str,
    text: str,
) -> None:
    await core_connection.execute(
        "CREATE FUNCTION brain.may_read(claims jsonb, channel text) RETURNS boolean"
        f" LANGUAGE sql STABLE AS $$ {body} $$"
    )
    finding = await granted(core_database, signed(channels=["none"]), channel)

    assert finding.verdict == verdict
    assert text in finding.text


async def test_a_token_whose_claims_fit_no_row_rule_sees_no_row(
    orders: asyncpg.Connection, core_database: str
) -> None:
    async def rows(**claims: Any) -> Finding:
        return await found(
            access.rows,
            settings=settings_with(),
            token=signed(**claims),
            channels=["orders"],
            database_url=core_database,
        )

    without_rules = await rows()
    await orders.execute(
        """SELECT brain.restrict('orders', '{"customer_id": "customer"}', '{"role": ["admin"]}')"""
    )
    fitting, lacking, exempt = await rows(customer="7"), await rows(), await rows(role="admin")

    assert (without_rules.verdict, fitting.verdict, exempt.verdict) == ("ok", "ok", "ok")
    assert fitting.details == ["orders: customer_id is the claim customer"]
    assert lacking.verdict == "failure"
    assert "has to have the claim customer" in lacking.text


async def test_a_running_brain_grants_the_channel_or_says_why_not(
    shared_brain: RunningBrain,
) -> None:
    async def subscribed(channel: str, where: dict[str, Any] | None = None) -> Finding:
        return await found(
            access.of_brain,
            url=shared_brain.http,
            token=signed(channels=["tasks"]),
            channels=[channel],
            where=where,
        )

    allowed = await subscribed("tasks", {"status": {"eq": "running"}})
    denied = await subscribed("agents")
    filtered = await subscribed("tasks", {"no_such_column": {"eq": 1}})

    assert allowed.verdict == "ok"
    assert (denied.verdict, filtered.verdict) == ("failure", "failure")
    assert "not_allowed" in denied.text
    assert "no_such_column" in filtered.text


async def test_a_token_without_the_right_to_the_test_channel_waits_for_its_transaction(
    shared_brain: RunningBrain, shared_database: str
) -> None:
    results = await run(
        request(
            settings=settings_with(),
            url=shared_brain.http,
            token=signed(channels=["tasks"]),
            database_url=shared_database,
        ),
        [
            nodes.alive,
            websocket.websocket,
            token.verified,
            event.logged,
            event.read,
            event.delivered,
        ],
    )

    delivered = results[-1].finding
    assert delivered.verdict == "ok"
    assert delivered.details[0].startswith("by until")
