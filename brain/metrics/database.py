"""Metrics of the database: the log, watches, locks, connections; read slowly, by one process."""

from __future__ import annotations

import asyncio
import time

import asyncpg
from prometheus_client import CollectorRegistry, Gauge

from brain.database.connection import DATABASE_ERRORS, explain
from brain.problems import Problems

# The first event by the index is about the oldest: events have no index by time. The number of rows
# is an estimate, as that of live rows is after a crash.
LOG = """
    SELECT sum(pg_total_relation_size(c.oid))::bigint AS bytes,
           sum(greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0))::bigint AS rows,
           coalesce(extract(epoch FROM clock_timestamp() - least(
               (SELECT at FROM brain.events_0 ORDER BY transaction_id, id LIMIT 1),
               (SELECT at FROM brain.events_1 ORDER BY transaction_id, id LIMIT 1),
               (SELECT at FROM brain.events_2 ORDER BY transaction_id, id LIMIT 1),
               (SELECT at FROM brain.events_3 ORDER BY transaction_id, id LIMIT 1))), 0)::float8
               AS oldest_seconds,
           EXISTS (SELECT FROM brain.events_0)::integer
           + EXISTS (SELECT FROM brain.events_1)::integer
           + EXISTS (SELECT FROM brain.events_2)::integer
           + EXISTS (SELECT FROM brain.events_3)::integer AS slots
      FROM pg_class c
     WHERE c.oid IN ('brain.events'::regclass, 'brain.events_0'::regclass,
                     'brain.events_1'::regclass, 'brain.events_2'::regclass,
                     'brain.events_3'::regclass)
"""
WATCHES = """
    SELECT count(*) AS watches, coalesce(sum(cardinality(v.problems)), 0)::bigint AS problems,
           (SELECT count(*) FROM brain.watched w JOIN pg_class c ON c.oid = w.relation
             WHERE brain.trigger_problem(w) IS NOT NULL) AS without_trigger
      FROM brain.watches v
"""
# Of watched tables, their partitions, and Brain's own.
LOCKS = """
    SELECT count(DISTINCT l.relation) FILTER (WHERE l.granted
                                                AND l.mode = 'AccessExclusiveLock') AS locked,
           coalesce(max(extract(epoch FROM clock_timestamp() - l.waitstart)), 0)::float8
               AS wait_seconds
      FROM pg_locks l
     WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.locktype = 'relation' AND l.pid <> pg_backend_pid()
       AND (l.relation IN (SELECT t.relid FROM brain.watched w, pg_partition_tree(w.relation) t
                            UNION SELECT w.relation FROM brain.watched w)
            OR l.relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'brain'::regnamespace))
"""
SERVER = """
    SELECT extract(epoch FROM clock_timestamp())::float8 AS now,
           current_setting('server_version_num')::integer AS version,
           (SELECT sum(numbackends) FROM pg_stat_database)::integer AS connections,
           current_setting('max_connections')::integer AS most_connections,
           (SELECT count(*) FROM brain.schema_versions WHERE schema = 'brain' AND number > 0)
               AS upgrades
"""


class DatabaseMetrics:
    """Shows what only the database knows."""

    def __init__(self, registry: CollectorRegistry, retention_seconds: float) -> None:
        self._registry = registry
        self._log_rows = self._gauge("brain_log_rows", "Events in the log; an estimate.")
        self._log_bytes = self._gauge("brain_log_bytes", "The size of the log, with its indexes.")
        self._log_slots = self._gauge(
            "brain_log_slots_used", "Of the four slots of the log, those that have events."
        )
        self._oldest = self._gauge("brain_oldest_event_seconds", "The age of the oldest event.")
        self._watches = self._gauge("brain_watches", "Watched tables.")
        self._watch_problems = self._gauge(
            "brain_watch_problems", "Problems of watched tables: brain watches prints them."
        )
        self._without_trigger = self._gauge(
            "brain_watches_without_trigger",
            "Watched tables with a trigger that is missing or disabled: changes are not seen.",
        )
        self._locked = self._gauge(
            "brain_tables_locked",
            "Watched tables, and Brain's own, that another session has locked exclusively.",
        )
        self._lock_wait = self._gauge(
            "brain_lock_wait_seconds", "The longest time that a session has waited for such a lock."
        )
        self._clock = self._gauge(
            "brain_database_clock_difference_seconds",
            "By how much the clock of the database is ahead of that of Brain.",
        )
        self._version = self._gauge(
            "brain_postgresql_version", "As server_version_num: 180001 is 18.1."
        )
        self._schema = self._gauge(
            "brain_schema_upgrades", "Numbered upgrades of the schema brain that were applied."
        )
        self._connections = self._gauge(
            "brain_database_connections", "Connections that the server has, of all its clients."
        )
        self._most_connections = self._gauge(
            "brain_database_connections_limit", "How many it takes: max_connections."
        )
        self._read_at = self._gauge(
            "brain_database_read_timestamp_seconds",
            "When these figures were all read last, in seconds since 1970.",
        )
        self._retention = self._gauge("brain_retention_seconds", "BRAIN_RETENTION_SECONDS.")
        self._retention_seconds = retention_seconds

    async def follow(
        self,
        pool: asyncpg.Pool,
        interval_seconds: float,
        timeout_seconds: float,
        problems: Problems,
    ) -> None:
        """For ever, read the figures; what fails is a problem, and tried again next time."""
        while True:
            await self.read(pool, timeout_seconds, problems)
            await asyncio.sleep(interval_seconds)

    async def read(self, pool: asyncpg.Pool, timeout_seconds: float, problems: Problems) -> None:
        """
        Read the figures, one query after the other, over a connection that the pool lends.

        A query that takes longer than `timeout_seconds` is given up.
        """
        self._retention.set(self._retention_seconds)
        queries = {
            LOG: self._show_log,
            WATCHES: self._show_watches,
            LOCKS: self._show_locks,
            SERVER: self._show_server,
        }
        has_failed = False
        for query, show in queries.items():
            try:
                async with pool.acquire(timeout=timeout_seconds) as connection:
                    (row,) = await connection.fetch(query, timeout=timeout_seconds)
                show(row)
            except DATABASE_ERRORS as error:
                has_failed = True
                problems.report(
                    "metrics", f"figures of the database cannot be read: {explain(error)}"
                )
        if not has_failed:
            self._read_at.set(time.time())

    def _show_log(self, row: asyncpg.Record) -> None:
        self._log_rows.set(row["rows"])
        self._log_bytes.set(row["bytes"])
        self._log_slots.set(row["slots"])
        self._oldest.set(row["oldest_seconds"])

    def _show_watches(self, row: asyncpg.Record) -> None:
        self._watches.set(row["watches"])
        self._watch_problems.set(row["problems"])
        self._without_trigger.set(row["without_trigger"])

    def _show_locks(self, row: asyncpg.Record) -> None:
        self._locked.set(row["locked"])
        self._lock_wait.set(row["wait_seconds"])

    def _show_server(self, row: asyncpg.Record) -> None:
        self._clock.set(row["now"] - time.time())
        self._version.set(row["version"])
        self._connections.set(row["connections"])
        self._most_connections.set(row["most_connections"])
        self._schema.set(row["upgrades"])

    def _gauge(self, name: str, text: str) -> Gauge:
        # Of a worker and the one that replaces it, both may show it for a while.
        return Gauge(name, text, registry=self._registry, multiprocess_mode="livemostrecent")
