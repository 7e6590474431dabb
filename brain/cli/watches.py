"""brain watch, unwatch and watches"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import click

from brain.cli.database import database_option, on_database
from brain.database import watches
from brain.database.connection import first_line, noting_warnings
from brain.database.watches import Table, Watch
from brain.errors import UsageError


@click.command("watch")
@click.argument("table")
@click.option(
    "--channel", metavar="NAME", help="The channel to stream on.  [default: the table's name]"
)
@click.option("--columns", metavar="A,B,C", help="The columns to stream; no others are read.")
@click.option("--all-columns", is_flag=True, help="Stream all columns that the table has now.")
@click.option("--except", "excluded", metavar="A,B", help="Stream all columns but these.")
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
@click.option(
    "--column-bytes",
    type=int,
    metavar="N",
    help="Leave out values that are larger.  [default: 262144]",
)
@click.option(
    "--row-bytes",
    type=int,
    metavar="N",
    help="Leave out the largest values of an event that is larger.  [default: 1048576]",
)
@database_option
def watch_command(
    table: str,
    channel: str | None,
    columns: str | None,
    all_columns: bool,
    excluded: str | None,
    types: tuple[str, ...],
    timing: str | None,
    replicated: bool,
    column_bytes: int | None,
    row_bytes: int | None,
    **flags: Any,
) -> None:
    """Stream a table's changes; a second call changes how."""

    if [columns is not None, all_columns, excluded is not None].count(True) != 1:
        raise UsageError("one of --columns, --all-columns and --except is needed")

    async def work(connection: asyncpg.Connection, url: str) -> str:
        await find_tables_as_psql(connection)
        with translating_refusals(), noting_warnings(connection, show_warning):
            found = await watches.find_table(connection, table)
            name = found.plain_name if channel is None else channel
            await watches.watch(
                connection,
                found.name,
                name,
                chosen_columns(found, columns, excluded),
                types=parsed_types(types),
                timing=timing,
                replicated=replicated,
                column_bytes=column_bytes,
                row_bytes=row_bytes,
            )
        return f"watching {found.name} on the channel {name} in {await place(connection, url)}"

    click.echo(on_database(work, **flags))


@click.command("unwatch")
@click.argument("table")
@database_option
def unwatch_command(table: str, **flags: Any) -> None:
    """Stop watching a table."""

    async def work(connection: asyncpg.Connection, url: str) -> str:
        await find_tables_as_psql(connection)
        with translating_refusals():
            found = await watches.find_table(connection, table)
            await watches.unwatch(connection, found.name)
        return f"{found.name} is no longer watched in {await place(connection, url)}"

    click.echo(on_database(work, **flags))


@click.command("watches")
@database_option
def watches_command(**flags: Any) -> None:
    """List the watched tables, and their problems."""

    async def work(connection: asyncpg.Connection, _: str) -> list[Watch]:
        return await watches.watches(connection)

    for watch in on_database(work, **flags):
        click.echo(f"{watch.channel}  {watch.table} ({', '.join(watch.columns)}) {watch.timing}")
        for problem in watch.problems:
            click.echo(f"    {problem}")


async def find_tables_as_psql(connection: asyncpg.Connection) -> None:
    """Have the name of a table mean what it means to the same role in psql."""
    await connection.execute("RESET search_path")


def chosen_columns(table: Table, columns: str | None, excluded: str | None) -> list[str]:
    """Return the columns of a list, or else all but those of another one."""
    if columns is not None:
        return split_list(columns)
    left_out = split_list(excluded or "")
    if unknown := [name for name in left_out if name not in table.columns]:
        has = ", ".join(table.columns)
        raise UsageError(f"table {table.name} has no column {', '.join(unknown)}; it has {has}")
    return [name for name in table.columns if name not in left_out]


def split_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def parsed_types(types: tuple[str, ...]) -> dict[str, str]:
    parts = [type.partition("=") for type in types]
    if any(not equals for _, equals, _ in parts):
        raise UsageError("a type is given as insert=name, update=name, delete=name, truncate=name")
    return {operation: name for operation, _, name in parts}


async def place(connection: asyncpg.Connection, url: str) -> str:
    """Return which database that is, and where: `database shop at localhost:5432`."""
    name = await connection.fetchval("SELECT current_database()")
    host = urlsplit(url).netloc.rpartition("@")[2] or "a local socket"
    if host.count(":") == 0 and "," not in host and "socket" not in host:
        host += ":5432"
    return f"database {name} at {host}"


def show_warning(text: str) -> None:
    click.echo(f"brain: warning: {text}", err=True)


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
        hint = getattr(error, "hint", None)
        text = first_line(error)
        raise UsageError(f"{text}: {hint}" if hint else text) from error
