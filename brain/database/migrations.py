"""Applies schemas to a database: that of the core, and those of the systems that are on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg

import brain
from brain.database.backoff import delays
from brain.database.connection import connected, first_line
from brain.database.migration_status import Status, compare
from brain.database.schema_files import CORE, Schema, Script, Step
from brain.database.schema_record import (
    create_record,
    not_an_owner,
    outdate_files,
    record_step,
)
from brain.database.url import shown
from brain.errors import (
    MigrationFailed,
    MigrationsPending,
    NodesServing,
    RightsMissing,
)
from brain.log_events import DATABASE_WARNING, MIGRATION_WAITS
from brain.problems import printable

# How long a step tries to get its locks: 2 s at a time, between which writers go on.
LOCK_PATIENCE_SECONDS = 60.0

MISSING = """
    SELECT CASE WHEN to_regnamespace('brain') IS NULL THEN 'schema brain' ELSE (
        SELECT kind || ' brain.' || name
          FROM (VALUES ('table', 'events'), ('table', 'ticks'),
                       ('function', 'newest'), ('function', 'flush'),
                       ('function', 'skip_ticks'), ('function', 'tick'),
                       ('function', 'read')) needed (kind, name)
         WHERE NOT EXISTS (SELECT FROM pg_class WHERE kind = 'table' AND relname = name
                              AND relnamespace = to_regnamespace('brain'))
           AND NOT EXISTS (SELECT FROM pg_proc WHERE kind = 'function' AND proname = name
                              AND pronamespace = to_regnamespace('brain')) LIMIT 1) END
"""
# What the role that migrates needs and cannot give itself, each with the command that gives it.
MISSING_RIGHTS = """
    SELECT ARRAY(
        SELECT format('CREATE ROLE %I NOLOGIN', name) FROM unnest(roles) name
         WHERE NOT may_create_roles AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
    ) || ARRAY(
        SELECT format('GRANT %s TO %I', string_agg(name, ', '), current_user)
          FROM unnest(roles) name
          LEFT JOIN pg_roles r ON r.rolname = name
         WHERE NOT is_superuser
           AND CASE WHEN r.oid IS NULL THEN NOT may_create_roles
                    ELSE NOT pg_has_role(r.oid, 'USAGE')
                         AND NOT pg_has_role(r.oid, 'USAGE WITH ADMIN OPTION')
                         -- Before PostgreSQL 16 one who may create roles may grant any.
                         AND NOT (may_create_roles
                                  AND current_setting('server_version_num')::int < 160000) END
        HAVING count(*) > 0
    ) || ARRAY(
        SELECT format('GRANT CREATE ON DATABASE %I TO %I', current_database(), current_user)
         WHERE NOT has_database_privilege(current_database(), 'CREATE')
           AND to_regnamespace('brain') IS NULL
    ) || ARRAY(
        SELECT format('GRANT TEMPORARY ON DATABASE %I TO brain_reader', current_database())
          FROM pg_database d
         WHERE d.datname = current_database()
           AND NOT has_database_privilege(d.oid, 'TEMPORARY WITH GRANT OPTION')
           AND NOT EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                            WHERE a.privilege_type = 'TEMPORARY'
                              AND a.grantee IN (0, coalesce(to_regrole('brain_reader'), 0)))
    ) || ARRAY(
        SELECT format('GRANT CREATE ON SCHEMA public TO %I', current_user)
         WHERE $1 AND NOT has_schema_privilege('public', 'CREATE')
    )
      FROM (SELECT ARRAY['brain_owner', 'brain_reader'] AS roles, rolsuper AS is_superuser,
                   rolsuper OR rolcreaterole AS may_create_roles
              FROM pg_roles WHERE rolname = current_user) one
"""
UNFINISHED = "SELECT DISTINCT schema FROM brain.system_problems"
SERVING = "SELECT count(*) FROM brain.nodes WHERE brain.is_recent(seen_at)"

logger = logging.getLogger(__name__)


async def status(url: str, schemas: Sequence[Schema]) -> Status:
    """Compare the database with `schemas`, changing nothing."""
    async with connected(url) as connection:
        return await compare(connection, url, schemas)


async def require_current(url: str, schemas: Sequence[Schema]) -> None:
    """Raise `MigrationsPending` if something of `schemas` is pending."""
    pending = (await status(url, schemas)).pending
    if pending:
        raise MigrationsPending(
            f"{shown(url)} lacks {', '.join(map(str, pending))}: run `brain migrate`"
        )


async def missing_object(connection: asyncpg.Connection) -> str | None:
    """Return what the log cannot be read without and the database does not have, if anything."""
    missing: str | None = await connection.fetchval(MISSING)
    return missing


async def migrate(
    url: str, schemas: Sequence[Schema], *, spares_nodes: bool = False, replays: bool = False
) -> list[Step]:
    """
    Apply what is pending, each step in its transaction; return what was pending.

    Schemas with a table that could not be watched, or a feed that could not be defined, are applied
    again. What is still missing then is logged as a warning, each once. With `spares_nodes`,
    `NodesServing` is raised if that would cut off nodes that serve the database. With `replays`,
    files are applied also if others of the same revision have replaced them.
    """
    async with connected(url) as connection:
        found = await compare(connection, url, schemas, replays=replays)
        if found.pending or await unfinished(connection, schemas, found):
            await lock(connection)
            found = await compare(connection, url, schemas, replays=replays)
            if spares_nodes:
                await refuse_to_cut_off(connection, url, found)
            await apply_pending(connection, url, schemas, found)
    for newer in found.newer:
        if newer.has_same_revision:
            newer.log(logger)
    return list(found.pending)


async def apply_pending(
    connection: asyncpg.Connection, url: str, schemas: Sequence[Schema], found: Status
) -> None:
    creates_tables = any(schema.name != CORE for schema in schemas)
    if any(step.schema == CORE for step in found.pending):
        await require_rights(connection, url, creates_tables=creates_tables)
    await create_record(connection)
    by_name = {schema.name: schema for schema in schemas}
    with warnings_logged(connection):
        for step in found.pending:
            await apply(connection, step, by_name[step.schema])
        for step in await unfinished(connection, schemas, found):
            if step not in found.pending:
                await apply(connection, step, by_name[step.schema])


async def refuse_to_cut_off(connection: asyncpg.Connection, url: str, found: Status) -> None:
    """Raise `NodesServing` if what is pending would stop nodes that serve the database."""
    if found.cut_off and (nodes := await serving_nodes(connection)):
        names = ", ".join(schema.name for schema in found.cut_off)
        raise NodesServing(
            f"{nodes} processes serve {shown(url)}, and the new schema ({names}) would not serve "
            f"them: stop them first, or run `brain migrate` with Brain {brain.__version__}, which "
            "ends them; `brain migrate --plan` says more"
        )


async def serving_nodes(connection: asyncpg.Connection) -> int:
    """Return how many processes of Brain serve the database."""
    if not await connection.fetchval("SELECT to_regclass('brain.nodes') IS NOT NULL"):
        return 0
    nodes: int = await connection.fetchval(SERVING)
    return nodes


async def unfinished(
    connection: asyncpg.Connection, schemas: Sequence[Schema], found: Status
) -> list[Step]:
    """Return the files of applied schemas that have a table or a feed with a problem."""
    if not await connection.fetchval("SELECT to_regclass('brain.system_problems') IS NOT NULL"):
        return []
    names = {row["schema"] for row in await connection.fetch(UNFINISHED)}
    # The files of an older Brain must not replace those of a newer one.
    names -= {newer.schema.name for newer in found.newer}
    return [schema.current() for schema in schemas if schema.name in names]


LOCKED = """
    SELECT CASE WHEN pg_try_advisory_lock(5221, 4) THEN true ELSE (
        SELECT count(*) > 0 AND NOT coalesce(bool_or(
                   has_database_privilege(a.usesysid, l.database, 'CREATE')
                   OR EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = 'brain'
                                 AND pg_has_role(a.usesysid, n.nspowner, 'MEMBER'))), false)
          FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.classid = 5221 AND l.objid = 4 AND l.objsubid = 2
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND l.granted) END
"""


async def lock(connection: asyncpg.Connection) -> None:
    # Polled: a session that waits for a lock holds a snapshot, for which CREATE INDEX CONCURRENTLY
    # in another one would wait in turn. Any role can take the lock: only sessions of those that may
    # migrate count, and no transaction that is prepared for two-phase commit, which has none.
    while not await connection.fetchval(LOCKED):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def require_rights(connection: asyncpg.Connection, url: str, *, creates_tables: bool) -> None:
    """Raise `RightsMissing`, with all that an administrator has to grant, if anything is."""
    missing: list[str] = await connection.fetchval(MISSING_RIGHTS, creates_tables)
    # Tables that exist are watched without the right to create any: that is a warning by itself.
    if [one for one in missing if "SCHEMA public" not in one]:
        raise RightsMissing(
            f"the role at {shown(url)} may not set up Brain; an administrator can allow it with "
            + "; ".join(missing)
        )


async def apply(connection: asyncpg.Connection, step: Step, schema: Schema) -> None:
    """
    Apply a step; the files as they are today contain all upgrades.

    A lock that another session holds is tried again and again: while a session waits for a lock of
    a table, all others that come after it wait, too.
    """
    started = time.monotonic()
    for pause in delays():
        try:
            return await apply_once(connection, step, schema)
        except LockTaken as error:
            if time.monotonic() - started > LOCK_PATIENCE_SECONDS:
                raise MigrationFailed(f"{error}; end what holds it, and try again") from error
            MIGRATION_WAITS.log(logger, "%s; trying again in %.1f s", error, pause, step=str(step))
        await asyncio.sleep(pause)


async def apply_once(connection: asyncpg.Connection, step: Step, schema: Schema) -> None:
    started = time.monotonic()
    async with connection.transaction():
        for script in step.scripts:
            await run(connection, step, script)
        milliseconds = round((time.monotonic() - started) * 1000)
        await record_step(connection, schema, step, milliseconds)
        if step.is_upgrade:
            await outdate_files(connection, schema)
        else:
            for contained in schema.upgrades():
                await record_step(connection, schema, contained, 0)


class LockTaken(Exception):
    """A step did not get a lock in time; nothing of it was kept."""


async def run(connection: asyncpg.Connection, step: Step, script: Script) -> None:
    where = f"schema {step.schema}, {script.name}"
    try:
        await connection.execute(script.sql, timeout=None)
    except asyncpg.InsufficientPrivilegeError as error:
        raise RightsMissing(f"schema {step.schema}: {not_an_owner(error)}") from error
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
        raise LockTaken(f"{where} waited in vain for a lock: {first_line(error)}") from error
    except asyncpg.PostgresError as error:
        raise MigrationFailed(f"{where} failed: {first_line(error)}") from error


@contextmanager
def warnings_logged(connection: asyncpg.Connection) -> Iterator[None]:
    def log(_: Any, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "WARNING":
            DATABASE_WARNING.log(logger, "%s", printable(message.message or ""))

    connection.add_log_listener(log)
    try:
        yield
    finally:
        connection.remove_log_listener(log)
