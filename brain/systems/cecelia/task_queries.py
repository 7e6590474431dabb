"""
Reads the table `tasks` for the page, and changes it for a backend.

Of an existing table that Brain did not create, only the columns `id` and `status` are certain.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import asyncpg
import orjson

from brain.database.budget import (
    GRACE_SECONDS,
    QueryFailed,
    TooSlow,
    concerning,
    unavailable,
)
from brain.database.connection import Queryable, first_line
from brain.database.log import LogConnection
from brain.database.reader_session import as_reader
from brain.systems.cecelia.errors import ColumnMissing, UnknownStatus, UnknownTask
from brain.systems.shared_tables.tasks.rows import CHANNEL

STATUSES = ("queued", "running", "in_progress", "completed", "failed")
MERGE_PAYLOAD = "payload = coalesce(payload::jsonb, '{{}}') || ${}::text::jsonb"

ERROR_IS_IN_PAYLOAD = """
    SELECT bool_or(attname = 'payload' AND atttypid IN ('json'::regtype, 'jsonb'::regtype))
           AND NOT bool_or(attname = 'error')
      FROM pg_attribute WHERE attrelid = 'public.tasks'::regclass AND attnum > 0
       AND NOT attisdropped
"""


# What clients may see of the table: the columns that are watched on the channel, in the rows that
# $2 allows. Of a table that Brain created, and that is watched as it was then, the page shows more
# columns than are watched.
SHOWN = """
    SELECT w.columns || w.key_columns AS columns, brain.rows_condition(w, $2::text::jsonb) AS rows,
           coalesce(s.created = w.relation AND w.columns @> (s.required || s.wanted), false)
               AS is_own
      FROM brain.watched w LEFT JOIN brain.system_tables s ON s.relation = 'public.tasks'
     WHERE w.channel = $1 AND w.relation = brain.relation_of('public.tasks')
"""
# What others can define in a table of theirs runs with the rights of brain_reader.
AS_READER = "SELECT r FROM pg_temp.brain_read($1, $2) r"
# For the page, with columns of the same names that are null.
COLUMNS = {
    "status": "text",
    "title": "text",
    "agent": "text",
    "progress": "integer",
    "current_step": "integer",
    "payload": "json",
    "started_at": "timestamptz",
    "completed_at": "timestamptz",
    "updated_at": "timestamptz",
    "error": "text",
}
MISSING = ", ".join(f"NULL::{type} AS {name}" for name, type in COLUMNS.items())
# A value of more bytes is null: the writers of tasks do not decide how much memory the page takes.
SHORT = r"CASE WHEN octet_length((\1)::text) <= 8192 THEN \1 END"
# In the subquery each name is the table's column where it has one, else that of `missing`.
# A column of type json may hold escapes that PostgreSQL keeps, and fails to read: such a value is
# left out. What is no text and no number is null, as it is in messages.
RECENT = r"""
    SELECT coalesce(json_agg(json_build_object(
               'id', n.id::text, 'title', SHORT(n.title),
               'agent', CASE WHEN json_typeof(SHORT(shown.agent)) IN ('string', 'number')
                             THEN shown.agent #>> '{}' END,
               'status', SHORT(n.status),
               'progress', CASE WHEN shown.progress #>> '{}' ~ number
                                THEN (shown.progress #>> '{}')::json END,
               'total_steps', SHORT(p.payload -> 'total_steps'),
               'step_name', SHORT(p.payload -> 'step_name'),
               'started_at', n.started_at, 'completed_at', n.completed_at,
               'updated_at', n.updated_at,
               'error', CASE WHEN json_typeof(SHORT(shown.error)) IN ('string', 'number')
                             THEN shown.error #>> '{}' END)
               ORDER BY n.place), '[]')::text
      FROM (SELECT MISSING) missing,
           LATERAL (SELECT id, COLUMNS,
                           row_number() OVER (ORDER BY UPDATED_AT DESC NULLS LAST, id) AS place
                      FROM public.tasks r
                     WHERE ROWS
                     ORDER BY UPDATED_AT DESC NULLS LAST, id LIMIT MOST) n,
           (SELECT bool_or(attname = 'agent') AS agent, bool_or(attname = 'error') AS error,
                   bool_or(attname = 'progress') AS progress,
                   bool_or(attname = 'current_step') AS current_step
              FROM pg_attribute WHERE attrelid = 'public.tasks'::regclass AND attnum > 0
               AND NOT attisdropped AND attname = ANY ($1::text::text[])) has,
           (SELECT '^-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][-+]?[0-9]+)?$' AS number,
                   '(?<!\\)(\\\\)*(\\u0000|\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])'
                   '|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f])' AS escapes) patterns,
           LATERAL (SELECT CASE WHEN j.payload::text !~* escapes THEN j.payload END AS payload,
                           CASE WHEN j.agent::text !~* escapes THEN j.agent END AS agent,
                           CASE WHEN j.error::text !~* escapes THEN j.error END AS error,
                           CASE WHEN j.progress::text !~* escapes THEN j.progress END AS progress
                      FROM (SELECT to_json(n.payload) AS payload, to_json(n.agent) AS agent,
                                   to_json(n.error) AS error,
                                   CASE WHEN has.progress THEN to_json(n.progress)
                                        ELSE to_json(n.current_step) END AS progress) j) p,
           LATERAL (SELECT CASE WHEN has.agent THEN p.agent ELSE p.payload -> 'agent' END AS agent,
                           CASE WHEN has.error THEN p.error ELSE p.payload -> 'error' END AS error,
                           CASE WHEN has.progress OR has.current_step THEN p.progress
                                WHEN p.payload ->> 'progress' ~ number THEN p.payload -> 'progress'
                                ELSE p.payload -> 'current_step' END AS progress) shown
"""


async def recent_tasks(
    connection: LogConnection, most: int, seconds: float = 4.0, allowed: str | None = None
) -> str | None:
    """
    Return the tasks that were updated last, newest first, with the columns of the page, as JSON.

    A column that the table lacks, or that is not watched, is null; agent, progress and error are
    then those of the payload. Of a table with row rules these are the rows that are `allowed`, as
    `RowAccess` has them. None if the table is not watched on its channel.

    Raises `LogUnavailable` if the table cannot be read, or not in so many seconds.
    """
    try:
        with concerning(CHANNEL, seconds):
            async with as_reader(connection) as session, session.limited(seconds):
                shown = await connection.fetchrow(SHOWN, CHANNEL, allowed)
                if shown is None:
                    return None
                names = COLUMNS if shown["is_own"] else COLUMNS.keys() & set(shown["columns"])
                query = recent(names, shown["rows"], most)
                text: str = await connection.fetchval(
                    AS_READER, query, "{" + ",".join(names) + "}", timeout=seconds + GRACE_SECONDS
                )
    except (QueryFailed, TooSlow) as error:
        raise unavailable(CHANNEL, error) from error
    return text


def recent(columns: Collection[str], rows: str, most: int) -> str:
    """Return the query for these columns of the rows that meet a condition."""
    read = {name: name if name in columns else f"missing.{name}" for name in COLUMNS}
    listed = ", ".join(f"{source} AS {name}" for name, source in read.items())
    return (
        re.sub(r"SHORT\(([^()]*)\)", SHORT, RECENT)
        .replace("MISSING", MISSING)
        .replace("COLUMNS", listed)
        .replace("UPDATED_AT", read["updated_at"])
        .replace("MOST", str(most))
        .replace("ROWS", rows)
    )


async def change_status(
    connection: Queryable,
    task_id: str,
    status: str,
    payload: Mapping[str, Any],
    error: str | None,
) -> None:
    """
    Set a task's status, and its error if one is given; merge `payload` into its payload.

    In a table without a column `error`, that is a member of the payload.

    Raises `UnknownStatus`, `UnknownTask`, and `ColumnMissing` for what the table cannot store.
    """
    if status not in STATUSES:
        raise UnknownStatus(f"a task's status is one of {', '.join(STATUSES)}, not {status!r}")
    changes = {"status = $2": status}
    if error is not None and await connection.fetchval(ERROR_IS_IN_PAYLOAD):
        payload, error = {**payload, "error": error}, None
    if payload:
        changes[MERGE_PAYLOAD.format(3)] = orjson.dumps(payload).decode()
    if error is not None:
        changes[f"error = ${len(changes) + 2}"] = error
    await change(connection, task_id, changes)


async def merge_payload(connection: Queryable, task_id: str, payload: Mapping[str, Any]) -> None:
    """Merge `payload` into a task's payload. Raises `UnknownTask` and `ColumnMissing`."""
    await change(connection, task_id, {MERGE_PAYLOAD.format(2): orjson.dumps(payload).decode()})


async def change(connection: Queryable, task_id: str, changes: Mapping[str, str]) -> None:
    """Change a task by assignments, each with the value of its parameter, from $2 upwards."""
    statement = f"""
        UPDATE public.tasks SET {", ".join(changes)} WHERE id::text = $1 RETURNING true
    """  # noqa: S608
    try:
        found = await connection.fetchval(statement, task_id, *changes.values())
    except asyncpg.UndefinedColumnError as problem:
        raise ColumnMissing(f"public.tasks cannot store this: {first_line(problem)}") from problem
    if not found:
        raise UnknownTask(f"there is no task {task_id!r}")
