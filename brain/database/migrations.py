"""
Applies schemas to a database: that of the core, and those of the systems that are on.

A schema is a folder. Its files in `schema/` (or `schema.sql`) create everything as it is today, may
be applied again at any time, and hold each function once. `upgrades/NNNN_name.sql` hold what cannot
be applied again: each is applied once and leads from one release to the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

import brain
from brain.database.connection import connected, first_line
from brain.database.url import shown
from brain.errors import (
    MigrationChanged,
    MigrationError,
    MigrationFailed,
    MigrationsPending,
    MigrationUnknown,
    MigrationUnsupported,
    RightsMissing,
)
from brain.log_events import DATABASE_WARNING
from brain.problems import printable

UPGRADE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
VERSION = re.compile(r"\d+(\.\d+)*")
CORE = "brain"
"""The name of the core's schema."""
REPLAYED = 0
"""The number under which the files that may be applied again are recorded."""

RECORDED = """
    SELECT schema, number, name, sha256, brain_version FROM brain.schema_versions
     WHERE schema = ANY ($1) ORDER BY schema, number
"""
RECORD = """
    INSERT INTO brain.schema_versions (schema, number, name, sha256, brain_version, milliseconds)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (schema, number) DO UPDATE
       SET sha256 = excluded.sha256, brain_version = excluded.brain_version, applied_at = now(),
           milliseconds = excluded.milliseconds
     WHERE schema_versions.number = 0
"""
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
# Until the files have been applied again, they are pending.
OUTDATE = "UPDATE brain.schema_versions SET sha256 = '' WHERE schema = $1 AND number = 0"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Script:
    """A file of SQL."""

    name: str
    sql: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Step:
    """What is applied in one transaction: an upgrade, or all files that may be applied again."""

    schema: str
    number: int
    name: str
    scripts: tuple[Script, ...] = field(repr=False)

    @property
    def sha256(self) -> str:
        texts = "".join(f"{script.name}\n{script.sql}\n" for script in self.scripts)
        return hashlib.sha256(texts.encode()).hexdigest()

    def __str__(self) -> str:
        return self.schema if self.number == REPLAYED else f"{self.schema} {self.name}"


@dataclass(frozen=True, slots=True)
class Schema:
    """The SQL of the core, or of a system, or of tables that several systems share."""

    name: str
    folder: Path

    def current(self) -> Step:
        """Return the files that create everything as it is today."""
        files = sorted((self.folder / "schema").glob("*.sql"))
        files = files or list(self.folder.glob("schema.sql"))
        if not files:
            raise MigrationError(f"{self.folder} has neither schema/*.sql nor schema.sql")
        return Step(self.name, REPLAYED, "schema", tuple(map(read_script, files)))

    def upgrades(self) -> list[Step]:
        """Return the upgrades, in order; their numbers run from 1 without a gap."""
        steps = []
        for file in sorted((self.folder / "upgrades").glob("*.sql")):
            match = UPGRADE.fullmatch(file.name)
            if match is None:
                raise MigrationError(f"{file} is not named NNNN_name.sql")
            steps.append(Step(self.name, int(match["number"]), file.stem, (read_script(file),)))
        numbers = [step.number for step in steps]
        if numbers != list(range(1, len(numbers) + 1)):
            raise MigrationError(
                f"the files in {self.folder / 'upgrades'} do not count from 0001 upwards: {numbers}"
            )
        return steps


@dataclass(frozen=True, slots=True)
class Status:
    """What a database has of some schemas, and what it lacks, each in the order of application."""

    applied: tuple[Step, ...]
    pending: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A row of brain.schema_versions."""

    name: str
    sha256: str
    brain_version: str


def core_schema() -> Schema:
    """Return the core's schema: within the package in a wheel, beside it in the repository."""
    package = Path(brain.__file__).parent
    in_the_wheel, in_the_repository = package / "migrations", package.parent / "migrations"
    return Schema(CORE, in_the_wheel if in_the_wheel.is_dir() else in_the_repository)


def read_script(file: Path) -> Script:
    return Script(file.name, file.read_text(encoding="utf-8"))


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


async def migrate(url: str, schemas: Sequence[Schema]) -> list[Step]:
    """
    Apply what is pending, each step in its transaction; return what was pending.

    Schemas with a table that could not be watched, or a feed that could not be defined, are applied
    again. What is still missing then is logged as a warning, each once.
    """
    async with connected(url) as connection:
        is_current = not (await compare(connection, url, schemas)).pending
        if is_current and not await unfinished(connection, schemas):
            return []
        await lock(connection)
        creates_tables = any(schema.name != CORE for schema in schemas)
        pending = (await compare(connection, url, schemas)).pending
        if any(step.schema == CORE for step in pending):
            await require_rights(connection, url, creates_tables=creates_tables)
        await prepare(connection)
        upgrades = {schema.name: schema.upgrades() for schema in schemas}
        with warnings_logged(connection):
            for step in pending:
                await apply(connection, step, upgrades[step.schema])
            for step in await unfinished(connection, schemas):
                if step not in pending:
                    await apply(connection, step, upgrades[step.schema])
        return list(pending)


async def unfinished(connection: asyncpg.Connection, schemas: Sequence[Schema]) -> list[Step]:
    """Return the files of applied schemas that have a table or a feed with a problem."""
    if not await connection.fetchval("SELECT to_regclass('brain.system_problems') IS NOT NULL"):
        return []
    names = {row["schema"] for row in await connection.fetch(UNFINISHED)}
    return [schema.current() for schema in schemas if schema.name in names]


async def compare(connection: asyncpg.Connection, url: str, schemas: Sequence[Schema]) -> Status:
    recorded = await read_record(connection, url, [schema.name for schema in schemas])
    applied: list[Step] = []
    pending: list[Step] = []
    for schema in schemas:
        rows = recorded.get(schema.name, {})
        current, upgrades = schema.current(), schema.upgrades()
        refuse_unknown(current, upgrades, rows)
        missing = [step for step in upgrades if step.number not in rows]
        applied += [step for step in upgrades if step.number in rows]
        if REPLAYED not in rows:
            pending.append(current)
        elif missing or rows[REPLAYED].sha256 != current.sha256:
            pending += [*missing, current]
        else:
            applied.append(current)
    return Status(tuple(applied), tuple(pending))


async def read_record(
    connection: asyncpg.Connection, url: str, names: list[str]
) -> dict[str, dict[int, Recorded]]:
    """Return what was applied of the schemas with these names, by name and number."""
    try:
        if not await connection.fetchval("SELECT to_regclass('brain.schema_versions') IS NOT NULL"):
            if await connection.fetchval("SELECT to_regclass('brain.migrations') IS NOT NULL"):
                raise MigrationUnsupported(
                    f"{shown(url)} holds Brain's schema from before its first release, which "
                    "cannot be upgraded; to start afresh, which keeps tables in other schemas: "
                    f"psql {shlex.quote(shown(url))} -c 'DROP SCHEMA brain CASCADE'"
                )
            return {}
        rows = await connection.fetch(RECORDED, names)
    except asyncpg.InsufficientPrivilegeError as error:
        raise RightsMissing(
            f"the role at {shown(url)} lacks rights: {not_an_owner(error)}"
        ) from error
    recorded: dict[str, dict[int, Recorded]] = {}
    for row in rows:
        recorded.setdefault(row["schema"], {})[row["number"]] = Recorded(
            row["name"], row["sha256"], row["brain_version"]
        )
    return recorded


def refuse_unknown(current: Step, upgrades: list[Step], rows: dict[int, Recorded]) -> None:
    """Raise an error if a newer Brain recorded a row, or an applied upgrade was edited."""
    known = {step.number: step for step in upgrades}
    for number, row in rows.items():
        is_known = row.sha256 == current.sha256 if number == REPLAYED else number in known
        if not is_known and version(row.brain_version) > version(brain.__version__):
            raise MigrationUnknown(
                f"the database was migrated by Brain {row.brain_version}, which is newer than this "
                f"one ({brain.__version__}): install Brain {row.brain_version}"
            )
        if number == REPLAYED:
            continue
        if not is_known:
            raise MigrationUnknown(
                f"the database has {current.schema} {row.name}, which this installation lacks: "
                "install what applied it"
            )
        if known[number].sha256 != row.sha256:
            raise MigrationChanged(
                f"{known[number]} was changed after it had been applied: "
                "restore the file and put the change into a new one"
            )


def version(text: str) -> tuple[int, ...]:
    """Return the release that a version belongs to: (1, 2) for 1.2rc1."""
    match = VERSION.match(text)
    return tuple(map(int, match[0].split("."))) if match else ()


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


async def prepare(connection: asyncpg.Connection) -> None:
    """Create the schema `brain` and the record of what is applied, unless they exist."""
    if await connection.fetchval("SELECT to_regclass('brain.schema_versions') IS NOT NULL"):
        return
    try:
        # IF NOT EXISTS needs the right to create a schema even where the schema exists.
        if await connection.fetchval("SELECT to_regnamespace('brain') IS NULL"):
            await connection.execute("CREATE SCHEMA brain")
        await connection.execute(
            """
            CREATE TABLE brain.schema_versions (
                schema        text        NOT NULL,
                number        integer     NOT NULL,  -- 0: the files that may be applied again
                name          text        NOT NULL,
                sha256        text        NOT NULL,
                brain_version text        NOT NULL,
                applied_at    timestamptz NOT NULL DEFAULT now(),
                milliseconds  integer     NOT NULL,
                PRIMARY KEY (schema, number)
            )
            """
        )
    except asyncpg.InsufficientPrivilegeError as error:
        raise RightsMissing(f"the role may not set up Brain: {first_line(error)}") from error


async def apply(connection: asyncpg.Connection, step: Step, upgrades: list[Step]) -> None:
    """Apply a step; the files as they are today contain all `upgrades`."""
    started = time.monotonic()
    async with connection.transaction():
        for script in step.scripts:
            await run(connection, step, script)
        milliseconds = round((time.monotonic() - started) * 1000)
        await record(connection, step, milliseconds)
        if step.number == REPLAYED:
            for contained in upgrades:
                await record(connection, contained, 0)
        else:
            await connection.execute(OUTDATE, step.schema)


async def run(connection: asyncpg.Connection, step: Step, script: Script) -> None:
    try:
        await connection.execute(script.sql, timeout=None)
    except asyncpg.InsufficientPrivilegeError as error:
        raise RightsMissing(f"schema {step.schema}: {not_an_owner(error)}") from error
    except asyncpg.PostgresError as error:
        raise MigrationFailed(
            f"schema {step.schema}, {script.name} failed: {first_line(error)}"
        ) from error


async def record(connection: asyncpg.Connection, step: Step, milliseconds: int) -> None:
    await connection.execute(
        RECORD, step.schema, step.number, step.name, step.sha256, brain.__version__, milliseconds
    )


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


def not_an_owner(error: asyncpg.InsufficientPrivilegeError) -> str:
    return (
        f"{first_line(error)}; an administrator can allow it with "
        "GRANT brain_owner, brain_reader TO the role that Brain connects as"
    )
