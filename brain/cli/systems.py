"""brain systems, and which systems a command switches on"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import click

from brain.cli.database import database_option, on_database, read_settings
from brain.database.tables_of_systems import (
    SystemTable,
    declared_tables,
    fitting_tables,
    system_problems,
)
from brain.settings import Settings
from brain.system import System, installed_systems, schemas_of, select_systems


def systems_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--systems",
        metavar="A,B",
        help="The systems to switch on: all, or names that `brain systems` lists.  "
        "[BRAIN_SYSTEMS; default: all with Brain's own PostgreSQL, none with another]",
    )(command)


def systems_of(settings: Settings) -> list[System]:
    """Return the systems that are on: unless set, all with the embedded server, else none."""
    default = () if settings.database_url else ("all",)
    return select_systems(settings.systems or default, installed_systems())


@click.command("systems")
@systems_option
@database_option
def systems_command(**flags: Any) -> None:
    """List the systems, which of them are on, and what keeps their tables from being watched."""
    on = systems_of(read_settings(**flags))
    names = {system.name for system in on}
    for system in installed_systems().values():
        click.echo(
            f"{'on ' if system.name in names else 'off'}  {system.name:<16} {system.summary}"
        )

    async def report(connection: asyncpg.Connection) -> list[str]:
        return [
            *await system_problems(connection, schemas_of(on)),
            *await fits(connection, on),
        ]

    flags.pop("systems")
    for line in on_database(report, **flags):
        click.echo(f"    {line}")


async def fits(connection: asyncpg.Connection, on: Sequence[System]) -> list[str]:
    """Return a line per table of the user's that would fit a system which is off."""
    served = {table.relation for system in on for table in tables_of(system)}
    on_names = {system.name for system in on}
    off = [system for system in installed_systems().values() if system.name not in on_names]
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
