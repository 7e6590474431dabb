"""Notices when a newer Brain migrates the database while this one serves it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import asyncpg

from brain.database.connection import DATABASE_ERRORS
from brain.database.migration_status import Newer, newer_schemas, newest, refuse_too_new
from brain.database.schema_files import Schema
from brain.database.schema_record import Record, read_record
from brain.problems import Problems

CHECK_SECONDS = 2.0

logger = logging.getLogger(__name__)


async def follow_schema(
    pool: asyncpg.Pool,
    url: str,
    schemas: Sequence[Schema],
    problems: Problems,
    *,
    warns: bool = True,
) -> None:
    """
    For ever: compare the revision of the database with this Brain's.

    Raises `SchemaTooNew` once the database no longer serves this Brain: what it would send then may
    be wrong, so that its clients are better off with another node. With `warns`, a newer schema
    that serves this Brain is logged, once.
    """
    names = [schema.name for schema in schemas]
    known: list[Newer] = []
    while True:
        try:
            record = await read_record(pool, url, names)
        except DATABASE_ERRORS:
            pass  # what follows the log reports it
        else:
            refuse_too_new(schemas, record)
            newer = newer_schemas(schemas, record)
            for one in newer if warns else ():
                if one not in known:
                    logger.warning("%s", one)
            known = newer
            report_older(schemas, record, problems)
        await asyncio.sleep(CHECK_SECONDS)


def report_older(schemas: Sequence[Schema], record: Record, problems: Problems) -> None:
    """Report schemas that are older than this Brain: a backup was restored, for example."""
    for schema in schemas:
        rows = record.get(schema.name)
        if rows and newest(rows).revision < schema.revision.number:
            problems.report(
                f"schema {schema.name}",
                f"the database has revision {newest(rows).revision}, and this Brain needs revision "
                f"{schema.revision.number}: run `brain migrate`",
            )
