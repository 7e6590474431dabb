"""Connections to PostgreSQL; a failure is one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from brain.errors import (
    DatabaseError,
    DatabaseTooOld,
    DatabaseUnreachable,
    PoolerInTheWay,
    RightsMissing,
    WrongDatabaseUrl,
)
from brain.settings import OLDEST_POSTGRESQL

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
POOL_CONNECTIONS = 4

Queryable = asyncpg.Connection | asyncpg.Pool
"""What runs a query: a connection, or a pool that lends one."""

# What a connection or a query may raise when the database goes away under it. asyncpg 0.32 reports
# some terminations that come at an awkward moment as errors of its own state machine.
DRIVER_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
DISCONNECTIONS = (*DRIVER_ERRORS, DatabaseError)

# Those of PostgreSQL's own errors after which the connection is closed.
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)

# Set after connecting and not as start-up parameters, which PgBouncer refuses to pass on.
# The few queries run for ever with parameters that do not change their best plan: planned once, a
# read takes two thirds of the time. Keepalives make the server notice a dead node, and release
# its locks.
SESSION = """
    SET jit = off;
    SET plan_cache_mode = force_generic_plan;
    SET synchronous_commit = on;
    SET lock_timeout = '2s';
    SET idle_in_transaction_session_timeout = '10s';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SET application_name = 'brain';
"""

# Several hosts with commas between them, one of which is to be the primary.
HOST = r"([^/@:,\[\]]*|\[[0-9a-fA-F:.]+\])(:\d{1,5})?"
PORT = re.compile(r":(\d{1,5})(?=[,/?]|$)")
URL = re.compile(rf"postgres(ql)?://([^/]*@)?{HOST}(,{HOST})*(/|\?|$)")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection for the caller alone, not from a pool."""
    connection = await connect(url)
    try:
        yield connection
    except BaseException:
        # It may be broken, and closing it would take as long as a timeout.
        connection.terminate()
        raise
    await close(connection)


@asynccontextmanager
async def opened_pool(url: str) -> AsyncIterator[asyncpg.Pool]:
    """Open a pool of a few connections, which are opened when needed."""
    async with asyncpg.create_pool(
        url,
        min_size=0,
        max_size=POOL_CONNECTIONS,
        timeout=CONNECT_SECONDS,
        command_timeout=CONNECT_SECONDS,
        # A standby may lag behind the log.
        target_session_attrs=SessionAttribute.read_write,
        server_settings={"application_name": "brain"},
    ) as pool:
        yield pool


async def close(connection: asyncpg.Connection) -> None:
    """Close a connection; terminate it if the server does not answer."""
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except DISCONNECTIONS:
        connection.terminate()


async def connect(url: str) -> asyncpg.Connection:
    """Open a connection with Brain's session settings."""
    check_url(url)
    with translating_connect_errors(url):
        connection: asyncpg.Connection = await asyncpg.connect(
            url,
            timeout=CONNECT_SECONDS,
            command_timeout=CONNECT_SECONDS,
            target_session_attrs=SessionAttribute.read_write,
        )
        try:
            major = connection.get_server_version().major
            if major < OLDEST_POSTGRESQL:
                raise DatabaseTooOld(
                    f"PostgreSQL {major} at {shown(url)} is too old: "
                    f"Brain needs {OLDEST_POSTGRESQL} or newer"
                )
            await connection.execute(SESSION)
        except BaseException:
            connection.terminate()
            raise
    return connection


async def require_own_session(url: str) -> None:
    """
    Raise `PoolerInTheWay` if transactions of one connection land on different sessions.

    LISTEN and the lock of a sleeping node belong to a session. A pooler cannot forge the process
    id that the server announces to it, so a direct connection is recognised at once; behind a
    pooler, two connections that are open at the same time must never share a session.
    """
    with translating_errors(url):
        async with connected(url) as connection:
            session = await connection.fetchval("SELECT pg_backend_pid()")
            if session == connection.get_server_pid():
                return
            async with connected(url) as other, other.transaction():
                shared = session == await other.fetchval("SELECT pg_backend_pid()")
                moved = session != await connection.fetchval("SELECT pg_backend_pid()")
        if shared or moved:
            raise PoolerInTheWay(
                f"{shown(url)} is a pooler in transaction mode: "
                "give Brain a direct connection, or one in session mode"
            )


def check_url(url: str) -> None:
    """Raise `WrongDatabaseUrl` unless `url` is a PostgreSQL URL."""
    match = URL.match(url)
    if match is None or any(int(port) > 65535 for port in PORT.findall(match[0])):
        raise WrongDatabaseUrl(
            "the database URL must read postgresql://user:password@host:port/database"
        )


def shown(url: str, *, with_user: bool = True) -> str:
    """Return `url` for printing: without its password and its parameters."""
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username and with_user else ""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{user}{host}{parts.path}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error: details and hints follow in PostgreSQL's errors."""
    return str(error).partition("\n")[0] or type(error).__name__


@contextmanager
def translating_connect_errors(url: str) -> Iterator[None]:
    """Turn what asyncpg raises while connecting into Brain's own errors."""
    try:
        yield
    except (*DRIVER_ERRORS, ValueError, OverflowError) as error:
        if (known := known_error(url, error)) is not None:
            raise known from error
        if isinstance(error, ValueError | OverflowError):
            raise WrongDatabaseUrl(
                f"the database URL {shown(url)} is wrong: {first_line(error)}"
            ) from error
        raise DatabaseUnreachable(why_unreachable(url, error)) from error


def why_unreachable(url: str, error: Exception) -> str:
    """Return why no connection could be made."""
    match error:
        case asyncpg.InvalidCatalogNameError():
            return f"there is no such database: {shown(url)}: {first_line(error)}"
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"the login at {shown(url)} was refused: {first_line(error)}"
        case asyncpg.TooManyConnectionsError():
            return f"{shown(url)} takes no more connections: {first_line(error)}"
        case OSError() if "Connect call failed" in str(error):
            return f"cannot connect to {shown(url)}: nothing listens there ({first_line(error)})"
        case _:
            return f"cannot connect to {shown(url)}: {first_line(error)}"


@contextmanager
def translating_errors(url: str) -> Iterator[None]:
    """Turn what asyncpg raises for queries over a connection into Brain's own errors."""
    try:
        yield
    except DRIVER_ERRORS as error:
        if (known := known_error(url, error)) is not None:
            raise known from error
        is_lost = isinstance(error, LOST) or not isinstance(error, asyncpg.PostgresError)
        what = f"the connection to {shown(url)} was lost" if is_lost else f"{shown(url)} reports"
        kind = DatabaseUnreachable if is_lost else DatabaseError
        raise kind(f"{what}: {first_line(error)}") from error


def known_error(url: str, error: Exception) -> DatabaseError | None:
    """Return what an error means whether Brain was connecting or connected; None: that matters."""
    match error:
        case asyncpg.ProtocolViolationError():
            return PoolerInTheWay(
                f"{shown(url)} does not speak plain PostgreSQL: {first_line(error)}"
            )
        case asyncpg.DuplicatePreparedStatementError() | asyncpg.InvalidSQLStatementNameError():
            return PoolerInTheWay(
                f"{shown(url)} is a pooler in transaction mode, which loses prepared statements: "
                "give Brain a direct connection, or one in session mode"
            )
        case asyncpg.InsufficientPrivilegeError():
            return RightsMissing(f"the role at {shown(url)} lacks rights: {first_line(error)}")
        case TimeoutError():
            return DatabaseUnreachable(f"{shown(url)} did not answer within {CONNECT_SECONDS:g} s")
        case _:
            return None
