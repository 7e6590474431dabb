"""Who holds up writers and readers: locks on tables, and transactions that stay open."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, counted, failure, ok, warning
from brain.doctor.sessions import AGAIN_SECONDS, require_seen_transactions

LONG_SECONDS = 60.0

# Strong locks on tables of Brain, and on those that its triggers are on, found without locking any.
# Another one's query is not read: it may hold values.
LOCKS = """
    SELECT c.oid AS relation, format('%I.%I', n.nspname, c.relname) AS table, l.mode, l.granted,
           l.pid, l.virtualtransaction, a.state, quote_ident(a.usename) AS role,
           nullif(a.application_name, '') AS application,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
           extract(epoch FROM clock_timestamp() - a.query_start)::float8 AS query_seconds,
           CASE WHEN l.granted THEN '{}' ELSE pg_blocking_pids(l.pid) END AS blockers,
           (SELECT count(*) FROM pg_locks w WHERE w.relation = l.relation
               AND w.database = l.database AND NOT w.granted)::int AS waiting,
           (SELECT p.gid FROM pg_prepared_xacts p JOIN pg_locks t
                ON t.locktype = 'transactionid' AND t.transactionid = p.transaction
             WHERE l.pid IS NULL AND t.virtualtransaction = l.virtualtransaction LIMIT 1) AS gid,
           -- Which prepared transaction it is that blocks, pg_blocking_pids does not say.
           (SELECT p.gid FROM pg_prepared_xacts p
              JOIN pg_locks t ON t.locktype = 'transactionid' AND t.transactionid = p.transaction
              JOIN pg_locks r ON r.virtualtransaction = t.virtualtransaction AND r.pid IS NULL
             WHERE NOT l.granted AND r.relation = l.relation AND r.database = l.database
             ORDER BY p.prepared LIMIT 1) AS blocking_gid
      FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       AND c.relkind IN ('r', 'p')
       AND (n.nspname = 'brain' OR EXISTS (
            SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid
             WHERE t.tgrelid = c.oid AND f.pronamespace = to_regnamespace('brain')))
     ORDER BY l.granted DESC, a.xact_start
"""
TRANSACTIONS = """
    SELECT a.pid, quote_ident(a.usename) AS role, nullif(a.application_name, '') AS application,
           a.state, NULL AS gid,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
           extract(epoch FROM clock_timestamp() - a.query_start)::float8 AS query_seconds,
           EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.mode = 'RowExclusiveLock'
                      AND l.relation IN (SELECT c.oid FROM pg_class c
                                          WHERE c.relnamespace = to_regnamespace('brain')
                                            AND c.relname LIKE 'events%')) AS has_events
      FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
       AND a.backend_type = 'client backend'
       AND a.xact_start < clock_timestamp() - make_interval(secs => $1)
    UNION ALL
    SELECT NULL, quote_ident(owner), NULL, 'prepared', gid,
           extract(epoch FROM clock_timestamp() - prepared)::float8, NULL, true
      FROM pg_prepared_xacts
     WHERE database = current_database()
       AND prepared < clock_timestamp() - make_interval(secs => $1)
     ORDER BY seconds DESC NULLS LAST
"""


@check("database.locks")
async def locks(examination: Examination) -> Finding:
    """No session holds a lock on a watched table, or one of Brain's, that others wait for."""
    connection = await examination.connection()
    before = {identity(row) for row in await connection.fetch(LOCKS)}
    if before:
        await asyncio.sleep(AGAIN_SECONDS)
        held = [row for row in await connection.fetch(LOCKS) if identity(row) in before]
        if held:
            return of_locks(held)
    return ok("no lock is in the way on a watched table, or on one of Brain's")


def identity(row: asyncpg.Record) -> tuple[Any, ...]:
    return row["relation"], row["mode"], row["virtualtransaction"]


def of_locks(held: list[asyncpg.Record]) -> Finding:
    """Return who holds the locks, and how to end that."""
    first = held[0]
    effect = "no other session can read or write it"
    if first["mode"] != "AccessExclusiveLock":
        effect = "no other session can write to it"
    if not first["granted"]:
        effect = f"it waits for {blocker(first)}, and all others wait behind it"
    return failure(
        f"table {first['table']} is locked ({first['mode']}) by {holder(first)}: {effect}",
        way_out(first),
        [f"{row['table']}: {row['mode']} of {holder(row)}" for row in held[1:]],
        locks=[
            {
                "table": row["table"],
                "mode": row["mode"],
                "pid": row["pid"],
                "is_granted": row["granted"],
                "blockers": list(row["blockers"]),
                "waiting": row["waiting"],
                "transaction_seconds": rounded(row["seconds"]),
                "query_seconds": rounded(row["query_seconds"]),
            }
            for row in held
        ],
    )


def holder(row: asyncpg.Record) -> str:
    """Return who it is, without the text of a query."""
    if row["pid"] is None:
        return f"the prepared transaction {quoted(row['gid'])}"
    words = [f"pid {row['pid']}", f"role {row['role']}"]
    if row["application"]:
        words.append(f"application {row['application']!r}")
    if row["seconds"] is not None:
        words.append(f"transaction open for {row['seconds']:.0f} s")
        words.append(f"last query begun {row['query_seconds']:.0f} s ago")
    elif row["state"] is None:
        words.append("since when is seen by members of pg_read_all_stats alone")
    if row["state"]:
        words.append(row["state"])
    return ", ".join(words)


def way_out(row: asyncpg.Record) -> str:
    """Return the statement that ends a transaction, or the one that it waits for."""
    blockers = [pid for pid in row.get("blockers") or [row["pid"]] if pid]
    if blockers:
        return f"have it commit, or end it: SELECT pg_terminate_backend({blockers[0]})"
    gid = quoted(row["gid"] or row.get("blocking_gid"))
    return f"end it: COMMIT PREPARED {gid} or ROLLBACK PREPARED {gid}"


def blocker(row: asyncpg.Record) -> str:
    """Return who it is that another session waits for."""
    pids = [str(pid) for pid in dict.fromkeys(row["blockers"]) if pid]
    if pids:
        return f"pid {', '.join(pids)}"
    return f"the prepared transaction {quoted(row['blocking_gid'])}"


def quoted(gid: str | None) -> str:
    """Return the name of a prepared transaction as SQL has it."""
    return "'" + (gid or "…").replace("'", "''") + "'"


def rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


@check("database.transactions")
async def transactions(examination: Examination) -> Finding:
    """No transaction stays open for long: what it has written is sent after it has committed."""
    connection = await examination.connection()
    rows = await connection.fetch(TRANSACTIONS, LONG_SECONDS)
    if not rows:
        await require_seen_transactions(connection)
        return ok(f"no transaction is open for longer than {LONG_SECONDS:g} s")
    rows.sort(key=lambda row: not row["has_events"])
    first = rows[0]
    effect = "it keeps the log, and dead rows, from being removed"
    if first["has_events"]:
        effect = "what it has changed is sent only when it commits"
    return warning(
        f"open for longer than {LONG_SECONDS:g} s: {counted(len(rows), 'transaction')}:"
        f" {holder(first)}: {effect}",
        way_out(first),
        [holder(row) for row in rows[1:6]],
        transactions=[
            {"pid": row["pid"], "gid": row["gid"], "seconds": rounded(row["seconds"])}
            for row in rows
        ],
    )
