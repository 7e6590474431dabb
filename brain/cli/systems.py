"""brain systems, and which systems a command switches on"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncpg
import click

from brain.cli.database import (
    database,
    database_option,
    has_database,
    read_settings,
    run,
)
from brain.database import migrations
from brain.database.connection import connected
from brain.database.schema_files import core_schema
from brain.database.tables_of_systems import (
    SystemTable,
    applied_schemas,
    declared_tables,
    fitting_tables,
    system_problems,
)
from brain.log_events import SYSTEM_NOT_LOADED
from brain.process.signals import end_on_signals
from brain.settings import Settings
from brain.system import BrokenSystem, System, installed_systems, select_systems

logger = logging.getLogger(__name__)


def systems_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--systems",
        metavar="A,B",
        help="The systems to switch on: all, or names that `brain systems` lists.  "
        "[BRAIN_SYSTEMS; default: all with Brain's own PostgreSQL, none with another]",
    )(command)


def systems_of(settings: Settings, installed: Mapping[str, System]) -> list[System]:
    """Return the systems that are on: unless set, all with the embedded server, else none."""
    names = settings.systems or (() if settings.database_url else ("all",))
    selected = select_systems(names, installed)
    if "all" in names:
        for system in installed.values():
            if isinstance(system, BrokenSystem):
                text = "the system %s %s"
                SYSTEM_NOT_LOADED.log(logger, text, system.name, system.summary, system=system.name)
    return selected


@click.command("systems")
@systems_option
@database_option
def systems_command(**flags: Any) -> None:
    """List the systems, which of them are on, and what keeps their tables from being watched."""
    settings = read_settings(**flags)
    installed = installed_systems()
    on = systems_of(settings, installed)
    names = {system.name for system in on}
    for system in installed.values():
        click.echo(
            f"{'on ' if system.name in names else 'off'}  {system.name:<16} {system.summary}"
        )
    if not has_database(settings):
        return
    end_on_signals()
    with database(settings, may_share=True) as (url, *_):
        for line in run(url, report(url, on, installed)):
            click.echo(f"    {line}")


async def report(url: str, on: Sequence[System], installed: Mapping[str, System]) -> list[str]:
    """Return what a database has of systems, and their problems; nothing if it has no Brain."""
    async with connected(url) as connection:
        if await connection.fetchval("SELECT to_regclass('brain.schema_versions') IS NULL"):
            return []
        await migrations.require_current(url, [core_schema()])
        applied = await applied_schemas(connection)
        present = [
            system.name
            for system in installed.values()
            if system.schemas and applied.issuperset(schema.name for schema in system.schemas)
        ]
        return [
            *(
                [f"applied to this database: the schemas of {', '.join(present)}"]
                if present
                else []
            ),
            *await system_problems(connection),
            *await fits(connection, on, installed),
        ]


async def fits(
    connection: asyncpg.Connection, on: Sequence[System], installed: Mapping[str, System]
) -> list[str]:
    """Return a line per table of the user's that would fit a system which is off."""
    served = {table.relation for system in on for table in tables_of(system)}
    on_names = {system.name for system in on}
    off = [system for system in installed.values() if system.name not in on_names]
    names: dict[str, str] = {}
    tables: list[SystemTable] = []
    for system in off:
        for table in tables_of(system):
            if table.relation not in served and table.relation not in names:
                names[table.relation] = system.name
                tables.append(table)
    return [
        f"{table.relation} fits {names[table.relation]}: --systems {names[table.relation]}"
        for table in await fitting_tables(connection, tables)
    ]


def tables_of(system: System) -> list[SystemTable]:
    return [table for schema in system.schemas for table in declared_tables(schema)]
