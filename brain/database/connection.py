"""Connections to PostgreSQL; a failure is one line that says what to do."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from brain.database.backend_terminator import Backend, BackendTerminator
from brain.database.message_limit import MessageLimit
from brain.database.session_settings import (
    DISCARD_TEMPORARY,
    FORGET,
    PLANNED_AS_NEEDED,
    PLANNED_ONCE,
    session_settings,
)
from brain.database.url import UrlWithCommand, check_url, shown, why_wrong
from brain.errors import (
    DatabaseError,
    DatabaseTooOld,
    DatabaseUnreachable,
    PoolerInTheWay,
    RightsMissing,
    WrongDatabaseUrl,
)
from brain.log_events import SESSION_NOT_ENDED
from brain.problems import printable
from brain.settings import OLDEST_POSTGRESQL

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
MOST_PASSWORD_BYTES = 64 * 1024
# Snapshots take seven at most, feeds and the access function five each.
POOL_CONNECTIONS = 20

Queryable = asyncpg.Connection | asyncpg.Pool | asyncpg.pool.PoolConnectionProxy
"""What runs a query: a connection, or a pool that lends one."""

# What a connection or a query may raise. asyncpg 0.32 reports some terminations that come at an
# awkward moment as errors of its own state machine. In a database without an encoding an error may
# have a text that is no UTF-8, as which asyncpg decodes it.
DRIVER_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    UnicodeDecodeError,
)
DATABASE_ERRORS = (*DRIVER_ERRORS, DatabaseError)
"""What may be raised where the database is used; `is_lost_link` divides them."""

# Those of PostgreSQL's own errors after which the connection is closed.
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.DatabaseDroppedError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
)

# And those with which it refuses a connection.
REFUSED = (
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)

OWN_BACKEND = """
    SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""
# False if it is not gone after a second, and no row if it was not there.
END_BACKEND = """
    SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
     WHERE pid = $1 AND ($2::timestamptz IS NULL OR backend_start = $2)
"""
# Of a longer error the rest is cut off.
LINE_CHARACTERS = 4000


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


class PooledConnection(asyncpg.Connection):
    """A connection of a pool: what runs in its session is bounded from outside."""

    backend: Backend
    terminator: BackendTerminator
    message_limit: MessageLimit

    @property
    def itself(self) -> PooledConnection:
        """Also of what a pool lends, which passes on all that it does not have."""
        return self


@asynccontextmanager
async def opened_pool(url: str) -> AsyncIterator[asyncpg.Pool]:
    """Open a pool of a few connections, which are opened when needed."""
    terminator = BackendTerminator(partial(end_backend, url))

    async def connect_for_pool(*_: object, **__: object) -> PooledConnection:
        # What users define runs in these sessions, and may prepare statements of any name: none
        # that a session keeps is run again.
        connection = await connect(
            url, PLANNED_AS_NEEDED, keeps_statements=False, connection_class=PooledConnection
        )
        assert isinstance(connection, PooledConnection)
        try:
            (backend,) = await connection.fetch(OWN_BACKEND)
        except BaseException:
            connection.terminate()
            raise
        connection.backend = Backend(*backend)
        connection.terminator = terminator
        connection.message_limit = MessageLimit(connection)
        return connection

    try:
        async with asyncpg.create_pool(
            url,
            min_size=0,
            max_size=POOL_CONNECTIONS,
            connect=connect_for_pool,
            connection_class=PooledConnection,
            reset=start_session_over,
        ) as pool:
            yield pool
    finally:
        await terminator.close()


async def end_backend(url: str, backend: Backend) -> bool:
    """End a backend, over a connection of its own; return False if it may still be there."""
    try:
        async with connected(url) as connection:
            # A role that was set may not end what the role that logs in has begun.
            await connection.execute("SET ROLE NONE")
            return await connection.fetchval(END_BACKEND, *backend) is not False
    except DATABASE_ERRORS as error:
        text = "cannot end the session %s: %s"
        SESSION_NOT_ENDED.log(logger, text, backend.pid, first_line(error), backend=backend.pid)
        return False


async def start_session_over(connection: asyncpg.Connection) -> None:
    """Make a session of a pool what it was at first, in one round trip, or close it."""
    settings = session_settings(connection, PLANNED_AS_NEEDED)
    try:
        await connection.execute(FORGET + settings + DISCARD_TEMPORARY, timeout=CLOSE_SECONDS)
    except DATABASE_ERRORS:
        # The query of the one who returns it has been answered.
        connection.terminate()


async def close(connection: asyncpg.Connection) -> None:
    """Close a connection; terminate it if the server does not answer."""
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except DATABASE_ERRORS:
        connection.terminate()


async def connect(
    url: str,
    plans: Mapping[str, str] = PLANNED_ONCE,
    *,
    keeps_statements: bool = True,
    connection_class: type[asyncpg.Connection] = asyncpg.Connection,
) -> asyncpg.Connection:
    """Open a connection with Brain's session settings."""
    check_url(url)
    password = await printed_password(url) if isinstance(url, UrlWithCommand) else None
    with translating_connect_errors(url):
        connection: asyncpg.Connection = await asyncpg.connect(
            url,
            connection_class=connection_class,
            password=password,
            timeout=CONNECT_SECONDS,
            command_timeout=CONNECT_SECONDS,
            statement_cache_size=100 if keeps_statements else 0,
            # A standby may lag behind the log. `read_write` would refuse a primary where
            # transactions are read-only by default.
            target_session_attrs=SessionAttribute.primary,
        )
        try:
            major = connection.get_server_version().major
            if major < OLDEST_POSTGRESQL:
                raise DatabaseTooOld(
                    f"PostgreSQL {major} at {shown(url)} is too old: "
                    f"Brain needs {OLDEST_POSTGRESQL} or newer"
                )
            await connection.execute(session_settings(connection, plans))
        except BaseException:
            connection.terminate()
            raise
    return connection


async def printed_password(url: UrlWithCommand) -> str:
    """Return what the command of a URL prints. Raises `DatabaseUnreachable`, without its output."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, printed = await asyncio.get_running_loop().subprocess_exec(
                PrintedOutput,
                *shlex.split(url.password_command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # with what it starts, it is a group of its own
            )
            try:
                await printed.is_complete.wait()
            finally:
                status = transport.get_returncode()
                await end_group(transport, printed)
    except TimeoutError:
        reason = f"it did not end within {CONNECT_SECONDS:g} s"
    except (OSError, ValueError, TypeError) as error:  # the last: no word at all
        reason = getattr(error, "strerror", None) or "it is no command"
    else:
        if len(printed.output) > MOST_PASSWORD_BYTES:
            reason = f"it prints more than {MOST_PASSWORD_BYTES} bytes"
        elif status == 0:
            return printed.output.decode(errors="surrogateescape").rstrip("\r\n")
        else:
            reason = f"its exit status is {status}"
    raise DatabaseUnreachable(f"BRAIN_DATABASE_PASSWORD_COMMAND prints no password: {reason}")


class PrintedOutput(asyncio.SubprocessProtocol):
    """Collects what a process prints, until it has ended or that is too much."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.is_complete = asyncio.Event()
        self.has_exited = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if len(self.output) <= MOST_PASSWORD_BYTES:
            self.output += data
        if len(self.output) > MOST_PASSWORD_BYTES:
            self.is_complete.set()

    def process_exited(self) -> None:
        self.has_exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_complete.set()  # the process has exited, and its output is closed


async def end_group(transport: asyncio.SubprocessTransport, printed: PrintedOutput) -> None:
    """Kill a process that leads a group, with what it has started, and close its output."""
    with suppress(ProcessLookupError, PermissionError):  # it may run as another user
        os.killpg(transport.get_pid(), signal.SIGKILL)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await printed.has_exited.wait()
    finally:
        transport.close()  # one that has left the group may still print


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


def first_line(error: BaseException) -> str:
    """Return the first line of an error: details and hints follow in PostgreSQL's errors."""
    if isinstance(error, UnicodeDecodeError):
        return "an error with a text that is not UTF-8"
    line = str(error)[:LINE_CHARACTERS].partition("\n")[0]
    return printable(line) or type(error).__name__


def is_lost_link(error: BaseException) -> bool:
    """
    Return True if there is no connection any more, or none could be made.

    Anything else is an error of a query, over a connection that is as good as before. A query that
    took too long may be either; it counts as an error of the query.
    """
    match error:
        case TimeoutError():
            return False
        case asyncpg.InterfaceError():  # otherwise asyncpg was called in a wrong way
            is_gone = re.search(r"\bclos(ed|ing)\b|released back to the pool", str(error))
            return is_gone is not None and not isinstance(error, ValueError)
        case _:
            lost = (OSError, asyncpg.InternalClientError, DatabaseError, *LOST, *REFUSED)
            return isinstance(error, lost)


def explain(error: BaseException) -> str:
    """Return in a line what an error of the database is, and which function it comes from."""
    if isinstance(error, TimeoutError):
        return "PostgreSQL did not answer in time"
    if is_lost_link(error) and not isinstance(error, DatabaseError):
        return f"the database cannot be reached: {first_line(error)}"
    context = getattr(error, "context", None) or ""
    lines = context.splitlines()
    if any(".brain_read(" in line for line in lines):  # it raises what it catches anew
        lines = []
    functions = [line for line in lines if " function " in line]
    return f"{first_line(error)} ({printable(functions[0])})" if functions else first_line(error)


@contextmanager
def translating_connect_errors(url: str) -> Iterator[None]:
    """Turn what asyncpg raises while connecting into Brain's own errors."""
    try:
        yield
    except (*DRIVER_ERRORS, ValueError, OverflowError, IndexError) as error:
        if (known := known_error(url, error)) is not None:
            raise known from error
        is_of_server = isinstance(error, UnicodeDecodeError)
        if isinstance(error, ValueError | OverflowError | IndexError) and not is_of_server:
            # Without the error: its text may quote any part of the URL.
            raise WrongDatabaseUrl(
                f"the database URL {shown(url)} is wrong: {why_wrong(error)}"
            ) from None
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
        if is_lost_link(error):
            raise DatabaseUnreachable(
                f"the connection to {shown(url)} was lost: {first_line(error)}"
            ) from error
        raise DatabaseError(f"{shown(url)} reports: {first_line(error)}") from error


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


@contextmanager
def noting_warnings(
    connection: asyncpg.Connection | asyncpg.pool.PoolConnectionProxy, note: Callable[[str], None]
) -> Iterator[None]:
    """Call `note` with each warning of the server to the statements of a connection."""

    def take(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "WARNING":
            note(str(message.message))

    connection.add_log_listener(take)
    try:
        yield
    finally:
        connection.remove_log_listener(take)
