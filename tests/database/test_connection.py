from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable
from contextlib import suppress

import asyncpg
import pytest

from brain.database.connection import (
    DATABASE_ERRORS,
    LINE_CHARACTERS,
    connect,
    connected,
    explain,
    first_line,
    is_lost_link,
    opened_pool,
    require_own_session,
    translating_connect_errors,
    translating_errors,
)
from brain.database.log import LogConnection
from brain.database.url import check_url, outlined, shown
from brain.errors import (
    DatabaseError,
    DatabaseTooOld,
    DatabaseUnreachable,
    PoolerInTheWay,
    WrongDatabaseUrl,
)
from tests.pgbouncer import pgbouncer_to
from tests.postgres import as_role, named
from tests.proxy import proxy_to

pytestmark = pytest.mark.postgres_versions


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://localhost/db",
        "mysql://u@h/db",
        "postgresql://h:port/db",
        "postgresql://h:99999/db",
        "postgresql://h:1,h:99999",
        "postgresql://[::1/db",
        "postgresql://h1,,h2/db",
        "postgresql://me:a@b@h/db",
        "postgresql://dom/me:secret@127.0.0.1:1/db",
        "postgresql://me:12/34@h/db",
        "postgresql://me:sec#ret@h/db",
        "postgresql://me:sec ret@h/db",
        "postgresql://me:sec\tret@h/db",
        "postgresql://me@h/db?password=a#b",
        "postgresql://me@h/db\x1b[2J",
    ],
)
def test_what_is_not_a_database_url_is_refused(url: str) -> None:
    with pytest.raises(WrongDatabaseUrl, match="must read postgresql://"):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p@h:5432/db",
        "postgresql:///db?host=/tmp",
        "postgresql://u@h1:1,h2:2/db",
        "postgresql://u:99999@h/db",
        "postgresql://[::1]:5432/db",
    ],
)
def test_a_database_url_is_accepted(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("sslmode=maybe", "its parameter sslmode has another value than it may have"),
        ("sslnegotiation=maybe", "its parameter sslnegotiation has"),
        ("port=secret", "it must read postgresql://"),
        ("secret", "it must read postgresql://"),
        ("host=,secret", "it must read postgresql://"),
    ],
)
async def test_a_wrong_parameter_of_a_url_is_an_error_that_quotes_nothing(
    query: str, reason: str
) -> None:
    with pytest.raises(WrongDatabaseUrl, match=reason) as refused:
        await connect(f"postgresql:///db?{query}")
    assert "secret" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_an_error_of_the_server_that_is_no_utf_8_does_not_blame_the_url() -> None:
    with pytest.raises(DatabaseUnreachable, match=r"a text that is not UTF-8$"):
        with translating_connect_errors("postgresql://me@127.0.0.1:1/db"):
            b"\xe4".decode()


def test_a_url_is_shown_without_its_password_and_its_parameters() -> None:
    assert (
        shown("postgresql://me:secret@host:5432/db?password=secret&sslmode=require")
        == "postgresql://me@host:5432/db"
    )
    assert shown("postgresql:///db") == "postgresql:///db"


@pytest.mark.parametrize(
    ("url", "shape"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:...@host:5432/db"),
        ("postgresql://me@one,two:5433/db?password=secret", "postgresql://me@one,two:5433/db?..."),
        ("postgresql:///db", "postgresql:///db"),
    ],
)
def test_a_command_has_dots_for_what_a_url_keeps_to_itself(url: str, shape: str) -> None:
    assert outlined(url) == shape


async def test_an_error_names_the_address_where_no_server_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(
        DatabaseUnreachable, match=f"cannot connect to postgresql://me@127.0.0.1:{port}"
    ):
        async with connected(f"postgresql://me:secret@127.0.0.1:{port}/db"):
            pass


async def test_an_error_of_a_query_is_not_one_of_connecting(postgres: str) -> None:
    async def failing(query: str) -> None:
        with translating_errors(postgres):
            async with connected(postgres) as connection:
                await connection.execute(query)

    for query in ("SELECT 1 / 0", "SELECT nextval('nowhere')", "SELECT 'x'::int"):
        with pytest.raises(DatabaseError, match=r"^postgresql://.* reports: ") as failed:
            await failing(query)
        assert type(failed.value) is DatabaseError
    with pytest.raises(DatabaseUnreachable, match=r"^the connection to postgresql://.* was lost: "):
        await failing("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)")
    with pytest.raises(ValueError, match="a mistake"), translating_errors(postgres):
        raise ValueError("a mistake")


async def test_a_connection_that_was_closed_on_the_way_was_lost(postgres: str) -> None:
    async with proxy_to(postgres) as (url, proxy):
        with pytest.raises(DatabaseUnreachable, match="was lost: "), translating_errors(url):
            async with connected(url) as connection:
                await proxy.close()
                await connection.execute("SELECT 1")


async def test_an_error_names_an_unknown_host() -> None:
    with pytest.raises(DatabaseUnreachable, match=r"nowhere\.invalid"):
        async with connected("postgresql://me@nowhere.invalid/db"):
            pass


async def test_an_error_names_a_database_that_does_not_exist(postgres: str) -> None:
    with pytest.raises(DatabaseUnreachable, match='"no_such_database" does not exist'):
        async with connected(named(postgres, "no_such_database")):
            pass


async def test_an_error_about_a_refused_login_is_without_the_password(postgres: str) -> None:
    with pytest.raises(DatabaseUnreachable, match="no_such_role") as refused:
        async with connected(as_role(postgres, "no_such_role")):
            pass
    assert "secret" not in str(refused.value)


async def test_a_server_older_than_14_is_refused(postgres: str) -> None:
    def as_thirteen(data: bytes) -> bytes:
        name = b"server_version\x00"
        at = data.find(name)
        if at < 0:
            return data
        at += len(name)
        return data[:at] + b"13" + data[at + 2 :]

    async with proxy_to(postgres, as_thirteen) as (url, _):
        with pytest.raises(DatabaseTooOld, match=r"PostgreSQL 13 .* needs 14 or newer"):
            async with connected(url):
                pass


async def test_a_direct_connection_has_a_session_of_its_own(postgres: str) -> None:
    await require_own_session(postgres)


async def test_a_pooler_in_session_mode_is_as_good_as_a_direct_connection(postgres: str) -> None:
    with pgbouncer_to(postgres, "session") as url:
        await require_own_session(url)


async def test_the_pool_works_through_a_pooler_in_session_mode(postgres: str) -> None:
    with pgbouncer_to(postgres, "session") as url:
        async with opened_pool(url) as pool:
            for _ in range(3):
                assert await pool.fetchval("SELECT current_setting('lock_timeout')") == "2s"


async def test_a_pooler_in_transaction_mode_is_recognised(postgres: str) -> None:
    with pgbouncer_to(postgres, "transaction") as url:
        with pytest.raises(PoolerInTheWay, match="pooler in transaction mode"):
            await require_own_session(url)


async def test_a_busy_pooler_in_transaction_mode_is_recognised(postgres: str) -> None:
    with pgbouncer_to(postgres, "transaction") as url:
        clients = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(5)]
        busy = [
            asyncio.create_task(client.execute("SELECT pg_sleep(0.01) FROM generate_series(1, 20)"))
            for client in clients
        ]

        with pytest.raises(PoolerInTheWay):
            await require_own_session(url)

        await asyncio.wait(busy)
        for client in clients:
            await client.close()


async def test_a_connection_that_goes_dead_is_given_up(postgres: str) -> None:
    async with proxy_to(postgres) as (url, proxy):
        async with connected(url) as connection:
            proxy.swallow()
            with pytest.raises(TimeoutError):
                await connection.fetchval("SELECT 1", timeout=0.1)


async def error_of(awaitable: Awaitable[object]) -> Exception:
    try:
        await awaitable
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


async def select(connection: LogConnection) -> None:
    await connection.execute("SELECT 1")


async def test_errors_of_queries_are_told_from_lost_links(postgres: str) -> None:
    async with opened_pool(postgres) as pool:
        queries = [
            await error_of(pool.execute("SELECT 1 / 0")),
            await error_of(pool.execute("SELECT nowhere()")),
            await error_of(pool.execute("SELECT $1::int", "closed")),
            await error_of(pool.execute("SELECT $1::int")),
            await error_of(pool.execute("SELECT pg_sleep(20)", timeout=0.01)),
            await error_of(pool.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(9)")),
            await error_of(pool.acquire(timeout=0)),
        ]
        terminated = await error_of(
            pool.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)")
        )
        async with pool.acquire() as closed:
            await closed.execute("SET idle_session_timeout = 1")
            with suppress(asyncpg.InterfaceError):  # the pool takes it back
                while not closed.is_closed():
                    await asyncio.sleep(0.01)
            idle = await error_of(select(closed))
    own = await connect(postgres)
    await own.execute("SET idle_session_timeout = 1")
    while not own.is_closed():
        await asyncio.sleep(0.01)
    links = [
        terminated,
        idle,
        await error_of(select(own)),
        await error_of(pool.execute("SELECT 1")),
        await error_of(connect(as_role(postgres, "no_such_role"))),
        await error_of(connect(named(postgres, "no_such_database"))),
        await error_of(connect("postgresql://me@nowhere.invalid/db")),
    ]

    assert [error for error in queries if is_lost_link(error)] == []
    assert [error for error in links if not is_lost_link(error)] == []
    assert all(isinstance(error, DATABASE_ERRORS) for error in queries + links)


async def test_an_error_is_explained_by_the_function_it_comes_from(postgres: str) -> None:
    async with connected(postgres) as connection:
        await connection.execute(
            "CREATE FUNCTION pg_temp.fails() RETURNS void LANGUAGE plpgsql"
            " AS $$BEGIN RAISE 'no' USING DETAIL = 'secret'; END$$"
        )
        raised = await error_of(connection.execute("SELECT pg_temp.fails()"))
        late = await error_of(connection.execute("SELECT pg_sleep(20)", timeout=0.01))
        wrong = await error_of(connection.execute("SELECT 1 / 0"))

    assert re.fullmatch(r"no \(PL/pgSQL function .*fails\(\) line 1 at RAISE\)", explain(raised))
    assert explain(wrong) == "division by zero"
    assert explain(late) == "PostgreSQL did not answer in time"
    assert explain(ConnectionResetError("reset")) == "the database cannot be reached: reset"
    assert explain(DatabaseUnreachable("cannot connect")) == "cannot connect"


def test_of_a_long_error_the_rest_is_cut_off() -> None:
    line = first_line(ValueError("\x1b" * 10**7))

    assert len(line) <= len(repr("\x1b")) * LINE_CHARACTERS
