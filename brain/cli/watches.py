"""brain watch, unwatch and watches"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import asyncpg
import click

from brain.cli import arguments
from brain.cli.database import database_option, on_database
from brain.database import watches
from brain.database.connection import first_line, noting_warnings
from brain.database.watches import Table, Watch
from brain.errors import UsageError

exempt_option = click.option(
    "--exempt",
    callback=arguments.text,
    multiple=True,
    metavar="CLAIM=VALUE",
    help="Clients with that value in that claim of their token see all rows; may be repeated.",
)

# As brain.watch has them.
MOST_BYTES = click.IntRange(8192, 16 * 1024 * 1024)


@click.command("watch")
@click.argument("table", callback=arguments.name)
@click.option(
    "--channel",
    callback=arguments.text,
    metavar="NAME",
    help="The channel to stream on.  [default: the table's name]",
)
@click.option(
    "--columns",
    callback=arguments.text,
    metavar="A,B,C",
    help="The columns to stream; no others are read.",
)
@click.option("--all-columns", is_flag=True, help="Stream all columns that the table has now.")
@click.option(
    "--except",
    "excluded",
    callback=arguments.text,
    metavar="A,B",
    help="Stream all columns but these.",
)
@click.option(
    "--type",
    "types",
    callback=arguments.text,
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
    type=MOST_BYTES,
    metavar="N",
    help="Leave out values that are larger.  [default: 262144]",
)
@click.option(
    "--row-bytes",
    type=MOST_BYTES,
    metavar="N",
    help="Leave out the largest values of an event that is larger.  [default: 1048576]",
)
@click.option(
    "--rule",
    "rules",
    callback=arguments.text,
    multiple=True,
    metavar="COLUMN=CLAIM",
    help="A client sees the rows in which the column has the value of its token's claim; may be "
    "repeated.  [default: the rules that there are]",
)
@exempt_option
@click.option(
    "--row-security",
    type=click.Choice(["ignored"]),
    help="Watch a table with row-level security without rules: each client gets all rows.",
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
    rules: tuple[str, ...],
    exempt: tuple[str, ...],
    row_security: str | None,
    **flags: Any,
) -> None:
    """Stream a table's changes; a second call replaces the whole watch."""

    if [columns is not None, all_columns, excluded is not None].count(True) != 1:
        raise UsageError("exactly one of --columns, --all-columns and --except is needed")

    async def work(connection: asyncpg.Connection, _: str) -> str:
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
                rules=parsed_rules(rules) or None,
                exempt=parsed_exemption(exempt) or None,
                row_security=row_security,
            )
        return f"watching {found.name} on the channel {name} in {await place(connection)}"

    click.echo(on_database(work, **flags))


@click.command("restrict")
@click.argument("table", callback=arguments.name)
@click.argument("rules", callback=arguments.text, nargs=-1, metavar="[COLUMN=CLAIM]...")
@exempt_option
@click.option("--none", "ends", is_flag=True, help="End all rules: each client gets all rows.")
@database_option
def restrict_command(
    table: str, rules: tuple[str, ...], exempt: tuple[str, ...], ends: bool, **flags: Any
) -> None:
    """
    Show each client of a watched table its own rows alone.

    Those in which each COLUMN has the value, or one of the values, of the CLAIM of its token.
    """
    if bool(rules) == ends:
        raise UsageError("rules are needed, like customer_id=sub; or --none to end all")

    async def work(connection: asyncpg.Connection, _: str) -> str:
        with translating_refusals(), noting_warnings(connection, show_warning):
            found = await watches.find_table(connection, table)
            by_column = parsed_rules(rules)
            await watches.restrict(connection, found.name, by_column, parsed_exemption(exempt))
        shown = " and ".join(
            f"{column} is the claim {claim}" for column, claim in by_column.items()
        )
        what = f"clients get the rows of {found.name} in which {shown}"
        if ends:
            what = f"clients get all rows of {found.name}"
        return f"{what}, in {await place(connection)}"

    click.echo(on_database(work, **flags))


@click.command("unwatch")
@click.argument("table", callback=arguments.name)
@database_option
def unwatch_command(table: str, **flags: Any) -> None:
    """Stop watching a table, which may have been dropped."""

    async def work(connection: asyncpg.Connection, _: str) -> str:
        with translating_refusals():
            try:
                found = await watches.find_table(connection, table)
                await watches.unwatch(connection, found.name)
            except (UsageError, asyncpg.RaiseError):
                dropped = await watches.unwatch_dropped(connection, table)
                if not dropped:
                    raise
                where = await place(connection)
                return "\n".join(
                    f"{name} was dropped, and is no longer watched in {where}" for name in dropped
                )
        return f"{found.name} is no longer watched in {await place(connection)}"

    click.echo(on_database(work, **flags))


@click.command("watches")
@database_option
def watches_command(**flags: Any) -> None:
    """List the watched tables, and their problems."""

    async def work(connection: asyncpg.Connection, _: str) -> list[Watch]:
        return await watches.watches(connection)

    for watch in on_database(work, **flags):
        click.echo(line_of(watch))
        for problem in watch.problems:
            click.echo(f"    {problem}")


def line_of(watch: Watch) -> str:
    """Return the channel, the table with its columns, the timing, and the options that are set."""
    parts = [f"{watch.channel}  {watch.table} ({', '.join(watch.columns)}) {watch.timing}"]
    if watch.is_replicated:
        parts.append("replicated")
    parts += [f"{operation}={name}" for operation, name in watch.types.items()]
    parts += [f"rule {column}={claim}" for column, claim in watch.rules.items()]
    return " ".join(parts)


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


def parsed_rules(rules: tuple[str, ...]) -> dict[str, str]:
    return dict(parsed_pairs(rules, "a rule is given as column=claim, like customer_id=sub"))


def parsed_exemption(exempt: tuple[str, ...]) -> dict[str, list[str]]:
    pairs = parsed_pairs(exempt, "an exemption is given as claim=value, like role=admin")
    values: dict[str, list[str]] = {}
    for claim, value in pairs:
        values.setdefault(claim, []).append(value)
    return values


def parsed_pairs(texts: tuple[str, ...], usage: str) -> list[tuple[str, str]]:
    """Return the two sides of each `a=b`; raises `UsageError` with `usage` if one is empty."""
    parts = [text.partition("=") for text in texts]
    if any(not (left and right) for left, _, right in parts):
        raise UsageError(usage)
    return [(left, right) for left, _, right in parts]


async def place(connection: asyncpg.Connection) -> str:
    """Return which database that is, and where: `database shop at localhost:5432`."""
    name = await connection.fetchval("SELECT current_database()")
    return f"database {name} at {shown_address(cast(Any, connection)._addr)}"


def shown_address(address: str | tuple[str, int]) -> str:
    if isinstance(address, str):  # the path of a socket
        return f"the local socket {address}"
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
