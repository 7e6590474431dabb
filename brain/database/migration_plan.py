"""What a migration would do, for an operator who upgrades a Brain that serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import asyncpg

import brain
from brain.database.connection import connected
from brain.database.migration_status import Status, compare, newest
from brain.database.migrations import require_rights, serving_nodes, unfinished
from brain.database.schema_files import CORE, Schema, Step
from brain.database.schema_record import read_record
from brain.database.tables_of_systems import declared_tables

NOTHING_TO_DO = 0
NODES_GO_ON = 6
NODES_STOP = 7

EXISTING = "SELECT name FROM unnest($1::text[]) name WHERE to_regclass(name) IS NOT NULL"
WATCHED = (
    "SELECT name FROM unnest($1::text[]) name JOIN brain.watched ON relation = to_regclass(name)"
)
WATCHING = "SHARE ROW EXCLUSIVE"
"""The lock under which PostgreSQL creates a trigger."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock on a table or a view that exists."""

    relation: str
    mode: str

    @property
    def waiting(self) -> str:
        """Who waits for it."""
        match self.mode:
            case "SHARE UPDATE EXCLUSIVE":
                return "only VACUUM waits"
            case "ACCESS EXCLUSIVE":
                return "who reads or writes it waits until the step is done"
            case _:
                return "who writes to it waits until the step is done"


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What would be applied in one transaction."""

    name: str
    kind: Literal["upgrade", "files"]
    files: Sequence[str]
    locks: Sequence[Lock] | None
    """None: the file does not declare them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a migration would do."""

    brain_version: str
    """Of the Brain that would migrate, like the next one."""
    revision: int
    present_version: str | None
    """Of the Brain that has migrated last; None if none has."""
    present_revision: int | None
    serving_nodes: int
    """How many processes serve the database now."""
    steps: Sequence[PlannedStep]
    applied_again: Sequence[str]
    """Schemas with a table or a feed that has a problem, which are applied at each migration."""
    newer: Sequence[str]
    """Schemas that a newer Brain has migrated, and that stay as they are."""
    nodes_go_on: bool
    """Whether nodes of the present revision go on serving, during and after the migration."""
    serves_since: str
    """The oldest release that works on the migrated database."""

    @property
    def exit_status(self) -> int:
        if not self.steps:
            return NOTHING_TO_DO
        return NODES_GO_ON if self.nodes_go_on else NODES_STOP


async def plan_migration(url: str, schemas: Sequence[Schema]) -> Plan:
    """
    Return what `migrate` would do, changing nothing.

    Raises the errors with which it would refuse to begin.
    """
    core, *_ = schemas
    async with connected(url) as connection:
        found = await compare(connection, url, schemas)
        if any(step.schema == CORE for step in found.pending):
            await require_rights(connection, url, creates_tables=len(schemas) > 1)
        rows = (await read_record(connection, url, [CORE])).get(CORE)
        by_name = {schema.name: schema for schema in schemas}
        return Plan(
            brain_version=brain.__version__,
            revision=core.revision.number,
            present_version=newest(rows).brain_version if rows else None,
            present_revision=newest(rows).revision if rows else None,
            serving_nodes=await serving_nodes(connection),
            steps=[await planned(connection, step, by_name[step.schema]) for step in found.pending],
            applied_again=await applied_again(connection, schemas, found),
            newer=[str(newer) for newer in found.newer],
            nodes_go_on=not found.cut_off,
            serves_since=core.serves_since,
        )


async def planned(connection: asyncpg.Connection, step: Step, schema: Schema) -> PlannedStep:
    """Return a step with the locks that it would take on what exists."""
    declared = step.locks
    locks = [Lock(*line.split(" ", 1)) for line in declared or ()]
    if not step.is_upgrade:
        tables = await to_be_watched(connection, schema)
        locks += [Lock(table, WATCHING) for table in tables]
    existing = await names(connection, EXISTING, [lock.relation for lock in locks])
    return PlannedStep(
        name=str(step),
        kind="upgrade" if step.is_upgrade else "files",
        files=[script.name for script in step.scripts],
        locks=None if declared is None else [lock for lock in locks if lock.relation in existing],
    )


async def to_be_watched(connection: asyncpg.Connection, schema: Schema) -> list[str]:
    """Return the tables that a system would begin to watch."""
    declared = [table.relation for table in declared_tables(schema)]
    if not await connection.fetchval("SELECT to_regclass('brain.watched') IS NOT NULL"):
        return declared
    watched = await names(connection, WATCHED, declared)
    return [table for table in declared if table not in watched]


async def names(connection: asyncpg.Connection, query: str, candidates: list[str]) -> set[str]:
    return {row["name"] for row in await connection.fetch(query, candidates)}


async def applied_again(
    connection: asyncpg.Connection, schemas: Sequence[Schema], found: Status
) -> list[str]:
    steps = await unfinished(connection, schemas, found)
    return [step.schema for step in steps if step not in found.pending]
