"""The sessions of other roles, of which an ordinary role sees little."""

from __future__ import annotations

import asyncio

import asyncpg

from brain.doctor.finding import NotChecked, counted

# What is held for a moment, as by the trimming of the log, is not looked at twice.
AGAIN_SECONDS = 0.4

# Sessions of which pg_stat_activity does not say since when they have a transaction; that they
# have one is seen by its lock. Workers of the server have no role.
UNSEEN = """
    SELECT a.pid, quote_ident(a.usename) AS role, nullif(a.application_name, '') AS application,
           l.virtualtransaction
      FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
     WHERE a.datname = current_database() AND a.usename IS NOT NULL AND a.backend_type IS NULL
       AND l.locktype = 'virtualxid' AND l.granted
     ORDER BY a.pid
"""


async def grant_of_statistics(connection: asyncpg.Connection) -> str:
    """Return the statement by which the role here sees the sessions of all roles."""
    role = await connection.fetchval("SELECT quote_ident(current_user)")
    return f"GRANT pg_read_all_stats TO {role}"


async def require_seen_transactions(connection: asyncpg.Connection) -> None:
    """Raise `NotChecked` if a transaction stays open of which the role here sees no more."""
    before = {row["virtualtransaction"] for row in await connection.fetch(UNSEEN)}
    if not before:
        return
    await asyncio.sleep(AGAIN_SECONDS)
    rows = [row for row in await connection.fetch(UNSEEN) if row["virtualtransaction"] in before]
    if rows:
        first = rows[0]
        raise NotChecked(
            f"since when {counted(len(rows), 'transaction')} of other roles stay open is not seen"
            f" from here; that of pid {first['pid']}, role {first['role']}, is one",
            f"{await grant_of_statistics(connection)}, as an administrator",
        )
