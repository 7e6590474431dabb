"""The tables that systems declare: which of them fit, and what keeps them from being watched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from brain.database.connection import Queryable
from brain.database.schema_files import Schema
from brain.errors import MigrationError

ADOPT_TABLE = re.compile(
    r"""brain\.adopt_table\(\s*'(?P<schema>\w+)',\s*'(?P<relation>[\w.]+)',\s*
        channel\s=>\s'(?P<channel>\w+)',\s*
        required\s=>\s'\{(?P<required>[\w\s,]*)\}',\s*
        wanted\s=>\s'\{(?P<wanted>[\w\s,]*)\}',""",
    re.VERBOSE,
)

CALL = re.compile(r"(?<!FUNCTION )brain\.adopt_table\s*\(", re.IGNORECASE)

FITTING = """
    SELECT n FROM unnest($1::text[], $2::text[]) WITH ORDINALITY t (relation, required, n)
     WHERE brain.primary_key(brain.relation_of(relation)) IS NOT NULL
       AND brain.missing_columns(brain.relation_of(relation), required::text[]) IS NULL
     ORDER BY n
"""
PROBLEMS = """
    SELECT problem FROM brain.system_problems
     WHERE $1::text[] IS NULL OR schema = ANY ($1) ORDER BY schema, name
"""


@dataclass(frozen=True, slots=True)
class SystemTable:
    """A table that a schema creates, or adopts where the database has it already."""

    schema: str
    relation: str
    channel: str
    required: tuple[str, ...]
    """The columns without which it is not watched."""
    wanted: tuple[str, ...]
    """More columns that are watched, as far as the table has them."""


def declared_tables(schema: Schema) -> list[SystemTable]:
    """
    Return the tables that a schema declares, read from its calls of `brain.adopt_table`.

    The SQL is where they are declared. It is read here, because a system that is off has left
    nothing in the database. Raises `MigrationError` for a call that cannot be read.
    """
    scripts = schema.current().scripts
    tables = [
        SystemTable(
            found["schema"],
            found["relation"],
            found["channel"],
            columns(found["required"]),
            columns(found["wanted"]),
        )
        for script in scripts
        for found in ADOPT_TABLE.finditer(script.sql)
    ]
    if len(tables) < sum(len(CALL.findall(script.sql)) for script in scripts):
        raise MigrationError(
            f"a call of brain.adopt_table in {schema.folder} cannot be read: "
            "it must name channel, required and wanted in this order"
        )
    return tables


def columns(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


async def fitting_tables(connection: Queryable, tables: Sequence[SystemTable]) -> list[SystemTable]:
    """Return those tables that the database has, with a primary key and the required columns."""
    rows = await connection.fetch(
        FITTING,
        [table.relation for table in tables],
        ["{" + ",".join(table.required) + "}" for table in tables],
    )
    return [tables[row["n"] - 1] for row in rows]


async def system_problems(
    connection: Queryable, schemas: Sequence[Schema] | None = None
) -> list[str]:
    """Return a line per table that is not, or not wholly, watched, and per feed; of all schemas."""
    names = None if schemas is None else [schema.name for schema in schemas]
    return [row["problem"] for row in await connection.fetch(PROBLEMS, names)]


async def applied_schemas(connection: Queryable) -> set[str]:
    """Return the names of the schemas that were applied to the database."""
    rows = await connection.fetch("SELECT DISTINCT schema FROM brain.schema_versions")
    return {row["schema"] for row in rows}
