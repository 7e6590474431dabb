"""What clients may do while the operator's access function cannot be called."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from brain.app import build_app
from brain.auth.access_function import AccessFunction
from brain.auth.policy import authority_for
from brain.database.connection import opened_pool
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.problems import Problems
from brain.settings import Settings
from tests.session.test_commands import published, token, with_secret
from tests.transport.served import application, new_hub, served

MISSIONS_ONLY = """
    CREATE TABLE gate ();
    CREATE FUNCTION brain.may_read(claims jsonb, channel text) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN PERFORM FROM public.gate; RETURN channel = 'missions'; END $$
"""


async def send(client: ClientConnection, **message: Any) -> Any:
    await client.send(orjson.dumps(message).decode())
    return orjson.loads(await client.recv())


async def refusal(url: str) -> int:
    """Return the status with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, proxy=None)
    return refused.value.response.status_code


async def test_a_client_keeps_its_rights_while_the_access_function_cannot_be_called(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.auth.access_function.KEEP_SECONDS", 0.0)
    await connection.execute(MISSIONS_ONLY)
    hub = new_hub()
    async with opened_pool(database) as pool:
        access_function = AccessFunction(1, pool)
        await access_function.look()
        app = application(hub, pool, settings=with_secret(), access_function=access_function)
        async with served(app) as (port, _):
            url = f"ws://127.0.0.1:{port}/ws/channel/missions?token={token()}"
            async with connect(url, proxy=None) as client:
                await client.recv()
                async with connection.transaction():
                    await connection.execute("LOCK TABLE gate")
                    for message in (
                        {"type": "auth", "token": token()},
                        {"type": "subscribe", "channel": "agents"},
                    ):
                        reply = await send(client, **message)
                        assert reply["type"] == "error"
                        assert "cannot be decided at the moment" in str(reply)
                    assert await refusal(url) == 503

                event = published("missions", number=1).with_values(tick=1, nonce=5, id=1)
                hub.deliver(Batch((event,), Cursor(1, 5)))
                assert orjson.loads(await client.recv())["data"] == {"number": 1}
                async with asyncio.timeout(20):
                    while (reply := await send(client, type="auth", token=token()))[
                        "type"
                    ] == "error":
                        pass
                assert reply["type"] == "authenticated"


async def test_a_name_that_no_channel_can_have_is_no_fault_of_the_access_function(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(MISSIONS_ONLY)
    problems = Problems()
    async with opened_pool(database) as pool:
        access_function = AccessFunction(1, pool, problems)
        await access_function.look()
        authority = authority_for(with_secret(), access_function)
        access = await authority.read_access(
            await authority.identify(token()), ["missions", "a\0b", "missions:\0"]
        )

    assert [access(name) for name in ("missions", "a\0b", "missions:\0")] == [True, False, False]
    assert problems.recent() == []


async def test_the_access_function_gets_the_user_of_a_development_token(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE FUNCTION brain.may_read(claims jsonb, channel text) RETURNS boolean LANGUAGE sql
        AS $$ SELECT channel = 'of ' || (claims ->> 'sub') $$
        """
    )
    async with opened_pool(database) as pool:
        access_function = AccessFunction(1, pool)
        await access_function.look()
        authority = authority_for(Settings(), access_function)
        access = await authority.read_access(
            await authority.identify("ann"), ["of user_ann", "of bob"]
        )

    assert (access("of user_ann"), access("of bob")) == (True, False)


async def test_a_client_of_a_feed_is_refused_meanwhile_and_may_try_again(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.auth.access_function.KEEP_SECONDS", 0.0)
    await connection.execute(MISSIONS_ONLY)
    app = build_app(database, with_secret(database_timeout_seconds=1))
    async with served(app) as (port, _):
        url = f"ws://127.0.0.1:{port}/ws/workflows?token={token()}"
        async with connection.transaction():
            await connection.execute("LOCK TABLE gate")
            assert await refusal(url) == 503
        # The call that was given up may not have ended yet.
        async with asyncio.timeout(20):
            while (status := await refusal(url)) == 503:
                pass
        assert status == 403
