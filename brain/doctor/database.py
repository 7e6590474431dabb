"""The database: can Brain reach it, is it new enough, and may the role do what Brain does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from socket import gaierror
from typing import Any

import asyncpg

from brain.database.connection import (
    DATABASE_ERRORS,
    require_own_session,
)
from brain.database.migrations import MISSING_RIGHTS
from brain.database.url import shown
from brain.doctor.check import check
from brain.doctor.examination import CONNECT_SECONDS, Examination
from brain.doctor.finding import Finding, failure, ok, warning
from brain.errors import (
    BrainError,
    DatabaseTooOld,
    PoolerInTheWay,
    RightsMissing,
    WrongDatabaseUrl,
)
from brain.settings import OLDEST_POSTGRESQL

# A node holds three connections and may open twenty more.
FREE_CONNECTIONS = 23

ROLE = """
    SELECT quote_ident(current_user) AS name, rolsuper AS is_superuser,
           to_regnamespace('brain') IS NOT NULL AS has_schema,
           array(SELECT wanted FROM unnest(ARRAY['brain_owner', 'brain_reader']) wanted
                  WHERE to_regrole(wanted) IS NOT NULL
                    AND NOT pg_has_role(to_regrole(wanted), 'USAGE')) AS lacks
      FROM pg_roles WHERE rolname = current_user
"""
# Of a session of another role an ordinary role sees its database and its role, and no type.
CONNECTIONS = """
    SELECT (SELECT count(*) FROM pg_stat_activity
             WHERE datid IS NOT NULL AND usesysid IS NOT NULL
               AND coalesce(backend_type, 'client backend') = 'client backend')::int AS used,
           current_setting('max_connections')::int
           - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true), '0')::int AS most
"""


@check("database.reachable", most_seconds=CONNECT_SECONDS + 2)
async def reachable(examination: Examination) -> Finding:
    """The server answers, and the login is accepted."""
    url = examination.database_url
    started = time.monotonic()
    try:
        await examination.open_connection()
    except DatabaseTooOld as error:
        examination.shared["too old"] = str(error)
        examination.give_up_database("PostgreSQL is too old", "see database.version")
    except PoolerInTheWay as error:
        examination.shared["pooler"] = str(error)
        examination.give_up_database("a pooler is in the way", "see database.pooler")
    except TimeoutError:
        examination.give_up_database("the database cannot be reached", "see database.reachable")
        return failure(
            f"{shown(url)} did not answer within {CONNECT_SECONDS:g} s",
            "is the server hung or overloaded (its log, its disk), or does a firewall swallow the"
            " packets to it?",
        )
    except (*DATABASE_ERRORS, BrainError) as error:
        examination.give_up_database("the database cannot be reached", "see database.reachable")
        return failure(str(error), way_out_of(error))
    milliseconds = (time.monotonic() - started) * 1000
    return ok(
        f"{shown(url)} answers after {milliseconds:.0f} ms", milliseconds=round(milliseconds, 1)
    )


# The first that fits; each for an error, or for what caused it.
WAYS_OUT: Sequence[tuple[type[BaseException], str]] = (
    (
        asyncpg.InvalidCatalogNameError,
        "create the database (createdb), or correct its name in BRAIN_DATABASE_URL",
    ),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        "correct user and password in BRAIN_DATABASE_URL, or the server's pg_hba.conf",
    ),
    (
        asyncpg.TooManyConnectionsError,
        "raise max_connections of the server, or end connections of other programs",
    ),
    (
        asyncpg.CannotConnectNowError,
        "wait: the server is starting up, shutting down or recovering; its log says how far it is",
    ),
    (gaierror, "correct the host in BRAIN_DATABASE_URL: its name does not resolve here"),
    (WrongDatabaseUrl, "correct --database-url or BRAIN_DATABASE_URL"),
    (RightsMissing, "GRANT CONNECT ON DATABASE … TO the role"),
    (
        OSError,
        "start PostgreSQL (systemctl status postgresql, pg_lsclusters), or correct host and port in"
        " BRAIN_DATABASE_URL, or listen_addresses of the server",
    ),
)


def way_out_of(error: BaseException) -> str:
    """Return what to do about a connection that could not be made."""
    for kind, text in WAYS_OUT:
        if isinstance(error, kind) or isinstance(error.__cause__, kind):
            return text
    return "correct BRAIN_DATABASE_URL, or what the server's log says at this time"


@check("database.version")
async def version(examination: Examination) -> Finding:
    """PostgreSQL is one that Brain works with."""
    if (text := examination.shared.get("too old")) is not None:
        return failure(text, f"upgrade the server to PostgreSQL {OLDEST_POSTGRESQL} or newer")
    found = (await examination.connection()).get_server_version()
    return ok(f"PostgreSQL {found.major}.{found.minor}", major=found.major, minor=found.minor)


@check("database.pooler", most_seconds=CONNECT_SECONDS + 2)
async def pooler(examination: Examination) -> Finding:
    """Each connection has a session of its own, as LISTEN needs."""
    text = examination.shared.get("pooler")
    if text is None:
        await examination.connection()
        try:
            await require_own_session(examination.database_url)
        except PoolerInTheWay as error:
            text = str(error)
            examination.give_up_database("a pooler is in the way", "see database.pooler")
    if text is not None:
        return failure(
            text,
            "give Brain a direct URL of the server in BRAIN_DATABASE_URL, or pool_mode = session in"
            " PgBouncer",
        )
    return ok("each connection has a session of its own")


@check("database.rights")
async def rights(examination: Examination) -> Finding:
    """The role may do what Brain does, and not much more."""
    connection = await examination.connection()
    role = await connection.fetchrow(ROLE)
    assert role is not None
    missing: list[str] = []
    if not role["is_superuser"]:
        missing = [
            one
            for one in await connection.fetchval(MISSING_RIGHTS, bool(examination.settings.systems))
            if "SCHEMA public" not in one
        ]
        if role["lacks"] and not any("brain_owner" in one for one in missing):
            missing.append(f"GRANT {', '.join(role['lacks'])} TO {role['name']}")
    if missing:
        return failure(
            f"the role {role['name']} lacks rights that Brain needs",
            "run as an administrator: " + "; ".join(missing),
        )
    if role["is_superuser"]:
        return warning(
            f"Brain connects as the superuser {role['name']}, and needs no such rights",
            "CREATE ROLE brain_service LOGIN … and the GRANTs in docs/operating.md, under Rights",
        )
    return ok(f"the role {role['name']} has the rights that Brain needs")


@check("database.connections")
async def connections(examination: Examination) -> Finding:
    """The server has connections left for Brain."""
    row = await (await examination.connection()).fetchrow(CONNECTIONS)
    assert row is not None
    free = row["most"] - row["used"]
    facts: dict[str, Any] = {"used": row["used"], "most": row["most"]}
    text = f"{row['used']} of {row['most']} connections are used"
    if free < FREE_CONNECTIONS:
        return warning(
            f"{text}: a node of Brain may need {FREE_CONNECTIONS}",
            "raise max_connections of the server, or end connections of other programs",
            **facts,
        )
    return ok(text, **facts)
