"""The schema `brain` of the database, and the tables of the systems that are on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brain.database import migrations
from brain.database.tables_of_systems import declared_tables, fitting_tables, system_problems
from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, failure, ok, warning
from brain.errors import (
    MigrationChanged,
    MigrationError,
    MigrationUnknown,
    MigrationUnsupported,
    UsageError,
)
from brain.system import System, installed_systems, schemas_of, select_systems


def systems_on(examination: Examination, installed: Mapping[str, System]) -> list[System]:
    """Return the systems that are on, as brain serve has it; none if the setting is wrong."""
    settings = examination.settings
    try:
        return select_systems(
            settings.systems or (() if settings.database_url else ("all",)), installed
        )
    except UsageError:
        return []


@check("database.migrations")
async def applied_migrations(examination: Examination) -> Finding:
    """The schema `brain` is the one of this version."""
    await examination.connection()
    schemas = schemas_of(systems_on(examination, installed_systems()))
    try:
        found = await migrations.status(examination.database_url, schemas)
    except MigrationUnsupported as error:
        return failure(
            str(error).partition("; to start afresh")[0],
            "start afresh: DROP SCHEMA brain CASCADE, which keeps tables in other schemas; then"
            " brain migrate",
        )
    except MigrationUnknown as error:
        return failure(
            f"the database is ahead of this Brain: {error}",
            "install the version that migrated the database, on every node and here",
        )
    except MigrationChanged as error:
        return failure(str(error), "install an unchanged release of Brain")
    except MigrationError as error:
        return failure(str(error), "install the version of Brain that the line names")
    connection = await examination.connection()
    if found.pending:
        lacks = f"the database lacks {', '.join(map(str, found.pending))}"
        if await connection.fetchval("SELECT to_regclass('brain.schema_versions') IS NULL"):
            lacks = "the database has no schema brain yet"
        return failure(lacks, "brain migrate, with the same BRAIN_DATABASE_URL")
    if missing := await migrations.missing_object(connection):
        return failure(
            f"{missing} is missing: it was dropped after the migration",
            "restore it from a backup; or start afresh: DROP SCHEMA brain CASCADE, then brain"
            " migrate, and watch the tables again",
        )
    return ok(f"{len(found.applied)} schemas are up to date")


@check("systems.tables")
async def tables(examination: Examination) -> Finding:
    """The tables of the systems that are on fit, and are watched."""
    connection = await examination.migrated()
    installed = installed_systems()
    on = systems_on(examination, installed)
    problems = await system_problems(connection, schemas_of(on))
    if problems:
        return warning(
            f"a table of a system does not fit: {problems[0]}",
            "alter the table as the line says and restart Brain; or leave the system out of"
            " BRAIN_SYSTEMS",
            problems[1:],
        )
    fits = await fitting_systems(examination, on, installed)
    names = ", ".join(system.name for system in on) or "none"
    return ok(f"systems that are on: {names}", fits, on=[system.name for system in on])


async def fitting_systems(
    examination: Examination, on: Sequence[System], installed: Mapping[str, System]
) -> list[str]:
    """Return a line for each table that fits a system which is off."""
    names = {system.name for system in on}
    owners = {
        table.relation: (system.name, table)
        for system in installed.values()
        if system.name not in names
        for schema in system.schemas
        for table in declared_tables(schema)
    }
    served = {t.relation for system in on for s in system.schemas for t in declared_tables(s)}
    candidates = [table for name, (_, table) in owners.items() if name not in served]
    return [
        f"{table.relation} fits {owners[table.relation][0]}, which is off: --systems"
        f" {owners[table.relation][0]}"
        for table in await fitting_tables(await examination.connection(), candidates)
    ]
