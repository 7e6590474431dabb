"""
Compares a database with schemas: what is applied, what is pending, what a newer Brain has migrated.

What a newer Brain has applied stays: an older one that the schema still serves applies none of its
own files over it, and one that it does not serve is refused. Of two that have the same revision and
different files, the older one is the one with the files that were applied before.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

import brain
from brain.database.schema_files import REPLAYED, Schema, Step
from brain.database.schema_record import Record, Recorded, read_record
from brain.errors import MigrationChanged, MigrationUnknown, SchemaTooNew
from brain.log_events import SCHEMA_NEWER

VERSION = re.compile(r"\d+(\.\d+)*")


@dataclass(frozen=True, slots=True)
class Newer:
    """A schema that a newer Brain has migrated, and that serves this one."""

    schema: Schema
    recorded: Recorded

    def log(self, logger: logging.Logger) -> None:
        SCHEMA_NEWER.log(
            logger,
            "%s",
            self,
            schema=self.schema.name,
            revision=self.recorded.revision,
            migrated_by=self.recorded.brain_version,
        )

    @property
    def has_same_revision(self) -> bool:
        return self.recorded.revision == self.schema.revision.number

    def __str__(self) -> str:
        if self.has_same_revision:
            return (
                f"schema {self.schema.name}: the files of this Brain {brain.__version__} were "
                "applied before, and others have replaced them since: they are not applied again "
                "but by `brain migrate --replay`"
            )
        return (
            f"schema {self.schema.name} was migrated by Brain {self.recorded.brain_version} to "
            f"revision {self.recorded.revision}, and serves this Brain {brain.__version__} "
            f"(revision {self.schema.revision.number}) too: nothing is applied to it"
        )


@dataclass(frozen=True, slots=True)
class Status:
    """What a database has of some schemas, and what it lacks, each in the order of application."""

    applied: tuple[Step, ...]
    pending: tuple[Step, ...]
    newer: tuple[Newer, ...] = ()
    cut_off: tuple[Schema, ...] = ()
    """Those that would no longer serve the Brain that has migrated them."""


async def compare(
    connection: asyncpg.Connection, url: str, schemas: Sequence[Schema], *, replays: bool = False
) -> Status:
    record = await read_record(connection, url, [schema.name for schema in schemas])
    refuse_too_new(schemas, record)
    applied: list[Step] = []
    pending: list[Step] = []
    newer = newer_schemas(schemas, record)
    cut_off = []
    for schema in schemas:
        rows = record.get(schema.name, {})
        upgrades = schema.upgrades()
        refuse_changed(upgrades, rows)
        if any(schema == one.schema for one in newer):
            continue
        if rows and newest(rows).revision < schema.revision.serves:
            cut_off.append(schema)
        current = schema.current()
        refuse_unknown(schema, current, upgrades, rows)
        missing = [step for step in upgrades if step.number not in rows]
        applied += [step for step in upgrades if step.number in rows]
        if REPLAYED not in rows or missing:
            pending += [*missing, current] if rows else [current]
        elif rows[REPLAYED].sha256 == current.sha256:
            applied.append(current)
        elif is_replaced(current, schema, rows[REPLAYED]) and not replays:
            newer.append(Newer(schema, rows[REPLAYED]))
        else:
            pending.append(current)
    return Status(tuple(applied), tuple(pending), tuple(newer), tuple(cut_off))


def is_replaced(current: Step, schema: Schema, row: Recorded) -> bool:
    """Return True if files were applied before, and others of their revision have replaced them."""
    # Without a checksum an upgrade was applied, and no files after it.
    has_files = row.revision == schema.revision.number and row.sha256 != ""
    return has_files and current.sha256 in row.replaced


def newest(rows: Mapping[int, Recorded]) -> Recorded:
    """
    Return the row of the latest revision.

    Between an upgrade and its files, that is the row of the upgrade.
    """
    return max(rows.values(), key=lambda row: row.revision)


def newer_schemas(schemas: Sequence[Schema], record: Record) -> list[Newer]:
    """Return the schemas of which the database has a later revision."""
    return [
        Newer(schema, newest(rows))
        for schema in schemas
        if (rows := record.get(schema.name)) and newest(rows).revision > schema.revision.number
    ]


def refuse_too_new(schemas: Sequence[Schema], record: Record) -> None:
    """Raise `SchemaTooNew` if a newer Brain has migrated a schema that does not serve this one."""
    for newer in newer_schemas(schemas, record):
        schema, recorded = newer.schema, newer.recorded
        if recorded.serves > schema.revision.number:
            raise SchemaTooNew(
                f"the database was migrated by Brain {recorded.brain_version}, and its schema "
                f"{schema.name} (revision {recorded.revision}) no longer serves this Brain "
                f"{brain.__version__} (revision {schema.revision.number}): install "
                f"{recorded.serves_since} or newer"
            )


def refuse_changed(upgrades: Sequence[Step], rows: Mapping[int, Recorded]) -> None:
    """Raise `MigrationChanged` if an applied upgrade was edited."""
    for step in upgrades:
        if step.number in rows and rows[step.number].sha256 != step.sha256:
            raise MigrationChanged(
                f"{step} was changed after it had been applied: "
                "restore the file and put the change into a new one"
            )


def refuse_unknown(
    schema: Schema, current: Step, upgrades: Sequence[Step], rows: Mapping[int, Recorded]
) -> None:
    """
    Raise `MigrationUnknown` if the database has an upgrade, or newer files, that these lack.

    Files that have replaced these are known: nodes that started before that serve with them, too.
    """
    known = {step.number for step in upgrades}
    for number, row in rows.items():
        if number == REPLAYED:
            is_known = row.sha256 == current.sha256 or is_replaced(current, schema, row)
        else:
            is_known = number in known
        if not is_known and version(row.brain_version) > version(brain.__version__):
            raise MigrationUnknown(
                f"the database was migrated by Brain {row.brain_version}, which is newer than this "
                f"one ({brain.__version__}): install Brain {row.brain_version}"
            )
        if not is_known and number != REPLAYED:
            raise MigrationUnknown(
                f"the database has {current.schema} {row.name}, which this installation lacks: "
                "install what applied it"
            )


def version(text: str) -> tuple[int, ...]:
    """Return the release that a version belongs to: (1, 2) for 1.2rc1."""
    match = VERSION.match(text)
    return tuple(map(int, match[0].split("."))) if match else ()
