"""The log: how large it is, and whether what is old leaves it."""

from __future__ import annotations

import asyncio

import asyncpg

from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, failure, ok, warning
from brain.doctor.sessions import AGAIN_SECONDS

# Retention keeps one and a half times its period at most; nodes look once a minute.
KEPT_PERIODS = 1.5
FAILED_PERIODS = 2.0
SLACK_SECONDS = 180.0
LARGE_BYTES = 8 * 1024**3

SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint AS bytes,
           coalesce(sum(greatest(c.reltuples, s.n_live_tup, 0)), 0)::bigint AS rows
      FROM pg_class c LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
     WHERE c.relnamespace = to_regnamespace('brain') AND c.relkind = 'r'
       AND c.relname IN ('events', 'events_0', 'events_1', 'events_2', 'events_3')
"""
OLDEST = """
    SELECT (SELECT extract(epoch FROM clock_timestamp() - e.at)::float8 FROM brain.events e
             ORDER BY e.transaction_id, e.id LIMIT 1) AS event_seconds,
           EXISTS (SELECT FROM brain.events_0) AND EXISTS (SELECT FROM brain.events_1)
               AND EXISTS (SELECT FROM brain.events_2) AND EXISTS (SELECT FROM brain.events_3)
               AS has_no_free_slot
"""
# Sessions that keep a slot of the log from being emptied: any lock on it does.
KEEPERS = """
    SELECT DISTINCT l.pid, l.virtualtransaction
      FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
      LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE c.relnamespace = to_regnamespace('brain') AND c.relname ~ '^events_[0-3]$'
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
       -- An ordinary role does not see since when another one's transaction is open.
       AND coalesce(a.xact_start < clock_timestamp() - interval '5 seconds', true) ORDER BY 1
"""


@check("log.retention")
async def retention(examination: Examination) -> Finding:
    """The oldest event is not much older than the retention."""
    connection = await examination.migrated()
    size = await connection.fetchrow(SIZE)
    oldest = await connection.fetchrow(OLDEST)
    assert size is not None and oldest is not None
    age = oldest["event_seconds"] or 0.0
    keep = examination.settings.retention_seconds
    facts = {
        "bytes": size["bytes"],
        "rows": size["rows"],
        "oldest_event_seconds": round(age, 1),
        "retention_seconds": keep,
    }
    text = (
        f"the log has some {size['rows']:,} events in {in_mebibytes(size['bytes'])}, the oldest is"
        f" {age:,.0f} s old; BRAIN_RETENTION_SECONDS is {keep:g}"
    )
    if oldest["has_no_free_slot"] or age > KEPT_PERIODS * keep + SLACK_SECONDS:
        details = [
            f"{keeper} keeps the log: its transaction has locks on it"
            for keeper in await keepers(connection)
        ]
        way_out = (
            "brain serve removes old events once a minute: is one running (nodes.alive), what does"
            " its log say of retention, and is a transaction open (database.transactions)? By hand:"
            f" SELECT brain.trim(make_interval(secs => {keep:g}))"
        )
        grows = f"old events are not removed, so the log grows: {text}"
        is_failed = age > FAILED_PERIODS * keep + SLACK_SECONDS
        return (failure if is_failed else warning)(grows, way_out, details, **facts)
    if size["bytes"] > LARGE_BYTES:
        return warning(
            f"the log is large: {text}",
            "set a shorter BRAIN_RETENTION_SECONDS, or watch fewer columns (brain watch --columns)",
            **facts,
        )
    return ok(text, **facts)


async def keepers(connection: asyncpg.Connection) -> list[str]:
    """Return who has locks on the log, and not for a moment alone."""
    before = {row["virtualtransaction"] for row in await connection.fetch(KEEPERS)}
    if not before:
        return []
    await asyncio.sleep(AGAIN_SECONDS)
    return [
        "a prepared transaction" if row["pid"] is None else f"pid {row['pid']}"
        for row in await connection.fetch(KEEPERS)
        if row["virtualtransaction"] in before
    ]


def in_mebibytes(count: int) -> str:
    return f"{count / 1024**2:,.1f} MiB"
