"""brain watch, unwatch and watches"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import click

from brain.cli.database import database_option, on_database
from brain.database import watches
from brain.database.connection import first_line
from brain.errors import UsageError


@click.command("watch")
@click.argument("table")
@click.option(
    "--channel", metavar="NAME", help="The channel to stream on.  [default: the table's name]"
)
@click.option(
    "--columns", required=True, metavar="A,B,C", help="The columns to stream; no others are read."
)
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="insert=NAME",
    help="The type of the messages for insert, update, delete or truncate; may be repeated.  "
    "[default: channel_inserted, ...]",
)
@click.option(
    "--timing",
    type=click.Choice(["immediate", "deferred"]),
    help="When changes are logged.  [default: deferred if the table has AFTER ROW triggers]",
)
@click.option("--replicated", is_flag=True, help="Stream what logical replication applies, too.")
@database_option
def watch_command(
    table: str,
    channel: str | None,
    columns: str,
    types: tuple[str, ...],
    timing: str | None,
    replicated: bool,
    **flags: Any,
) -> None:
    """Stream a table's changes; a second call changes how."""

    name = channel or table.rpartition(".")[2]

    async def work(connection: asyncpg.Connection) -> None:
        await find_tables_as_psql(connection)
        with translating_refusals():
            await watches.watch(
                connection,
                table,
                name,
                columns.split(","),
                types=parsed_types(types),
                timing=timing,
                replicated=replicated,
            )

    on_database(work, **flags)
    click.echo(f"{table} is watched on the channel {name}")


@click.command("unwatch")
@click.argument("table")
@database_option
def unwatch_command(table: str, **flags: Any) -> None:
    """Stop watching a table."""

    async def work(connection: asyncpg.Connection) -> None:
        await find_tables_as_psql(connection)
        with translating_refusals():
            await watches.unwatch(connection, table)

    on_database(work, **flags)
    click.echo(f"{table} is no longer watched")


@click.command("watches")
@database_option
def watches_command(**flags: Any) -> None:
    """List the watched tables, and their problems."""

    for watch in on_database(watches.watches, **flags):
        click.echo(f"{watch.channel}  {watch.table} ({', '.join(watch.columns)}) {watch.timing}")
        for problem in watch.problems:
            click.echo(f"    {problem}")


async def find_tables_as_psql(connection: asyncpg.Connection) -> None:
    """Have the name of a table mean what it means to the same role in psql."""
    await connection.execute("RESET search_path")


def parsed_types(types: tuple[str, ...]) -> dict[str, str]:
    parts = [type.partition("=") for type in types]
    if any(not equals for _, equals, _ in parts):
        raise UsageError("a type is given as insert=name, update=name, delete=name, truncate=name")
    return {operation: name for operation, _, name in parts}


@contextmanager
def translating_refusals() -> Iterator[None]:
    """Turn what brain.watch and brain.unwatch raise into one line."""
    try:
        yield
    except (
        asyncpg.RaiseError,
        asyncpg.DataError,
        asyncpg.UndefinedTableError,
        asyncpg.InvalidSchemaNameError,
        asyncpg.InvalidNameError,
        asyncpg.FeatureNotSupportedError,  # the name of another database
        asyncpg.PostgresSyntaxError,
    ) as error:
        raise UsageError(first_line(error)) from error
