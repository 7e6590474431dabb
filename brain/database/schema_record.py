"""The table brain.schema_versions: what was applied to a database, by which Brain."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

import brain
from brain.database.connection import Queryable, first_line
from brain.database.schema_files import Schema, Step
from brain.database.url import shown
from brain.errors import MigrationUnsupported, RightsMissing

# A database of an unreleased Brain may lack the newer columns until it is migrated.
RECORDED = """
    SELECT v.schema, v.number, v.name, v.sha256, v.brain_version, r.revision, r.serves,
           r.serves_since, r.replaced
      FROM brain.schema_versions v,
           jsonb_to_record('{"revision": 1, "serves": 1, "serves_since": "Brain 0.1.0",
                             "replaced": []}' || to_jsonb(v))
               r (revision int, serves int, serves_since text, replaced text[])
     WHERE v.schema = ANY ($1) ORDER BY v.schema, number
"""
RECORD = """
    INSERT INTO brain.schema_versions
           (schema, number, name, sha256, brain_version, milliseconds, revision, serves,
            serves_since)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (schema, number) DO UPDATE
       SET sha256 = excluded.sha256, brain_version = excluded.brain_version, applied_at = now(),
           milliseconds = excluded.milliseconds, revision = excluded.revision,
           serves = excluded.serves, serves_since = excluded.serves_since,
           replaced = array_remove(array_remove(schema_versions.replaced || schema_versions.sha256,
                                                excluded.sha256), '')
     WHERE schema_versions.number = 0
"""
# Until the files have been applied again, they are pending.
OUTDATE = """
    UPDATE brain.schema_versions SET sha256 = '', replaced = array_remove(replaced || sha256, '')
     WHERE schema = $1 AND number = 0
"""
CREATE = """
    CREATE TABLE IF NOT EXISTS brain.schema_versions (
        schema        text        NOT NULL,
        number        integer     NOT NULL,  -- 0: the files that may be applied again
        name          text        NOT NULL,
        sha256        text        NOT NULL,
        brain_version text        NOT NULL,
        applied_at    timestamptz NOT NULL DEFAULT now(),
        milliseconds  integer     NOT NULL,
        PRIMARY KEY (schema, number)
    );
    ALTER TABLE brain.schema_versions
        ADD COLUMN IF NOT EXISTS revision     integer NOT NULL DEFAULT 1,
        ADD COLUMN IF NOT EXISTS serves       integer NOT NULL DEFAULT 1,  -- the oldest revision
        ADD COLUMN IF NOT EXISTS serves_since text    NOT NULL DEFAULT 'Brain 0.1.0',
        ADD COLUMN IF NOT EXISTS replaced     text[]  NOT NULL DEFAULT '{}';  -- former checksums
"""
IS_COMPLETE = """
    SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('brain.schema_versions')
                      AND attname = 'replaced')
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A row of brain.schema_versions."""

    name: str
    sha256: str
    brain_version: str
    revision: int
    serves: int
    serves_since: str
    replaced: Sequence[str]
    """The checksums of files that were applied before, and that these have replaced."""


Record = Mapping[str, Mapping[int, Recorded]]
"""What was applied, by the names of schemas and the numbers of steps."""


async def read_record(connection: Queryable, url: str, names: Sequence[str]) -> Record:
    """Return what was applied of the schemas with these names."""
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
    for schema, number, *rest in rows:
        recorded.setdefault(schema, {})[number] = Recorded(*rest)
    return recorded


async def create_record(connection: asyncpg.Connection) -> None:
    """Create the schema `brain` and the record of what is applied, unless they exist."""
    if await connection.fetchval(IS_COMPLETE):
        return
    try:
        # IF NOT EXISTS needs the right to create a schema even where the schema exists.
        if await connection.fetchval("SELECT to_regnamespace('brain') IS NULL"):
            await connection.execute("CREATE SCHEMA brain")
        await connection.execute(CREATE)
    except asyncpg.InsufficientPrivilegeError as error:
        raise RightsMissing(f"the role may not set up Brain: {first_line(error)}") from error


async def record_step(
    connection: asyncpg.Connection, schema: Schema, step: Step, milliseconds: int
) -> None:
    """Record a step as applied, and the revision that it belongs to."""
    await connection.execute(
        RECORD,
        schema.name,
        step.number,
        step.name,
        step.sha256,
        brain.__version__,
        milliseconds,
        schema.revision.number,
        schema.revision.serves,
        schema.serves_since,
    )


async def outdate_files(connection: asyncpg.Connection, schema: Schema) -> None:
    """Make the files that may be applied again pending."""
    await connection.execute(OUTDATE, schema.name)


def not_an_owner(error: asyncpg.InsufficientPrivilegeError) -> str:
    return (
        f"{first_line(error)}; an administrator can allow it with "
        "GRANT brain_owner, brain_reader TO the role that Brain connects as"
    )
