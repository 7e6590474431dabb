"""brain watch-table, unwatch-table and watches"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import click

from brain.cli.database import database_option, on_database
from brain.database import watches
from brain.database.connection import told
from brain.errors import UsageError


@click.command("watch-table")
@click.argument("table")
@click.option("--channel", metavar="NAME", help="Where it is told.  [default: the table's name]")
@click.option("--columns", required=True, metavar="A,B,C", help="What is told of a row.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="insert=NAME",
    help="What the messages for insert, update, delete or truncate are called; may be repeated.  "
    "[default: channel_inserted, ...]",
)
@click.option(
    "--timing",
    type=click.Choice(["immediate", "deferred"]),
    help="When changes are logged.  [default: deferred if the table has AFTER ROW triggers]",
)
@click.option("--replicated", is_flag=True, help="Tell what logical replication applies, too.")
@database_option
def watch_table_command(
    table: str,
    channel: str | None,
    columns: str,
    types: tuple[str, ...],
    timing: str | None,
    replicated: bool,
    **flags: Any,
) -> None:
    """Have every change of a table told; said again, it changes how."""

    told_on = channel or table.rpartition(".")[2]

    async def watch(connection: asyncpg.Connection) -> None:
        with refusals_told():
            await watches.watch(
                connection,
                table,
                told_on,
                columns.split(","),
                types=parsed_types(types),
                timing=timing,
                replicated=replicated,
            )

    on_database(watch, **flags)
    click.echo(f"{table} is watched on the channel {told_on}")


@click.command("unwatch-table")
@click.argument("table")
@database_option
def unwatch_table_command(table: str, **flags: Any) -> None:
    """Let a table go."""

    async def unwatch(connection: asyncpg.Connection) -> None:
        with refusals_told():
            await watches.unwatch(connection, table)

    on_database(unwatch, **flags)
    click.echo(f"{table} is no longer watched")


@click.command("watches")
@database_option
def watches_command(**flags: Any) -> None:
    """Say which tables are watched, and what is wrong with that."""

    for watch in on_database(watches.watches, **flags):
        click.echo(f"{watch.channel}  {watch.table} ({', '.join(watch.columns)}) {watch.timing}")
        for problem in watch.problems:
            click.echo(f"    {problem}")


def parsed_types(types: tuple[str, ...]) -> dict[str, str]:
    parts = [type.partition("=") for type in types]
    if any(not equals for _, equals, _ in parts):
        raise UsageError("a type is given as insert=name, update=name, delete=name, truncate=name")
    return {operation: name for operation, _, name in parts}


@contextmanager
def refusals_told() -> Iterator[None]:
    """Turn what brain.watch and brain.unwatch refuse into one line."""
    try:
        yield
    except (
        asyncpg.RaiseError,
        asyncpg.UndefinedTableError,
        asyncpg.InvalidNameError,
    ) as error:
        raise UsageError(told(error)) from error
