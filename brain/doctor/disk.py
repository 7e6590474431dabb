"""The disk of the database: how long a commit waits for it, and whether it has space."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Facts, Finding, NotChecked, counted, failure, ok, warning
from brain.doctor.sessions import grant_of_statistics
from brain.settings import is_loopback_name

COMMITS = 5
COMMIT_SECONDS = 6.0
# A disk of today flushes in a few milliseconds; every write of every application waits so long.
SLOW_MILLISECONDS = 50.0
VERY_SLOW_MILLISECONDS = 250.0
LEAST_FREE_BYTES = 1024**3
LEAST_FREE_SHARE = 0.05

# A record of the WAL that belongs to no table: the commit flushes it, and nothing else is changed.
WRITE = "SELECT pg_logical_emit_message(true, 'brain.doctor', 'a commit is measured')"
UNSEEN = """
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usesysid IS NOT NULL AND backend_type IS NULL)
"""
WAITING = """
    SELECT wait_event, count(*)::int AS sessions FROM pg_stat_activity
     WHERE wait_event IN ('WALSync', 'WalSync', 'WALWrite', 'WalWrite', 'SyncRep', 'DataFileSync',
                          'DataFileFlush', 'DataFileExtend') GROUP BY 1 ORDER BY 2 DESC
"""
STANDBYS = """
    SELECT current_setting('synchronous_standby_names') AS names,
           (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))::int
               AS present
"""
BUSY = "look what keeps the disk busy (iostat -x 1), or move the server's pg_wal to a faster one"


@check("database.disk", most_seconds=COMMIT_SECONDS + 1)
async def disk(examination: Examination) -> Finding:
    """A commit reaches the disk quickly."""
    connection = await examination.connection()
    milliseconds: list[float] = []
    try:
        async with asyncio.timeout(COMMIT_SECONDS):
            for _ in range(COMMITS):
                async with connection.transaction():
                    await connection.execute(WRITE)
                    started = time.monotonic()
                milliseconds.append((time.monotonic() - started) * 1000)
                if milliseconds[0] > 1000:
                    break
    except TimeoutError:
        examination.drop_connection()
        return await of_endless_commit(examination)
    except asyncpg.DiskFullError:
        return disk_full()
    return of_commits(milliseconds, await waiting(connection))


def of_commits(milliseconds: list[float], waiting: list[str]) -> Finding:
    """Return what the times of commits mean."""
    median = statistics.median(milliseconds)
    facts: Facts = {
        "median_milliseconds": round(median, 2),
        "most_milliseconds": round(max(milliseconds), 2),
    }
    longest = f"the longest of {len(milliseconds)} {max(milliseconds):.3g} ms"
    text = f"a commit takes {median:.3g} ms, {longest}"
    if median >= VERY_SLOW_MILLISECONDS:
        return failure(f"the disk of the database is slow: {text}", BUSY, waiting, **facts)
    if median >= SLOW_MILLISECONDS:
        return warning(f"the disk of the database is slow: {text}", BUSY, waiting, **facts)
    return ok(text, **facts)


async def of_endless_commit(examination: Examination) -> Finding:
    """Return why a commit does not return: a standby, or the disk."""
    connection = await examination.connection()
    text = f"a commit does not return within {COMMIT_SECONDS:g} s"
    standbys = await connection.fetchrow(STANDBYS)
    details = await waiting(connection)
    if standbys is not None and standbys["names"] and not standbys["present"]:
        return failure(
            f"{text}: it waits for a synchronous standby, and none is connected",
            "start the standby, or take it out of synchronous_standby_names and SELECT"
            " pg_reload_conf()",
            details,
        )
    return failure(f"the disk of the database is slow: {text}", BUSY, details)


async def waiting(connection: asyncpg.Connection) -> list[str]:
    """Return how many sessions wait for the disk, or for a standby."""
    lines = [
        f"waiting for {row['wait_event']}: {counted(row['sessions'], 'session')}"
        for row in await connection.fetch(WAITING)
    ]
    if await connection.fetchval(UNSEEN):
        grant = await grant_of_statistics(connection)
        lines.append(f"what sessions of other roles wait for is not seen from here: {grant}")
    return lines


def disk_full() -> Finding:
    return failure(
        "the disk of the database is full: nothing can be written",
        "free space on the disk of the server (df -h), or enlarge it; what holds WAL back: SELECT"
        " slot_name, active FROM pg_replication_slots",
    )


@check("database.disk_space")
async def disk_space(examination: Examination) -> Finding:
    """The disk has space, as far as that can be seen from here."""
    way_out = (
        "run df -h on the server; or run brain doctor there, as a role in pg_read_all_settings"
    )
    if not all(map(is_here, hosts_of(examination.database_url))):
        raise NotChecked("the disk of another machine cannot be seen from here", way_out)
    connection = await examination.connection()
    try:
        folder = await connection.fetchval("SHOW data_directory")
        usage = shutil.disk_usage(Path(folder) / "pg_wal")
    except (asyncpg.InsufficientPrivilegeError, OSError):
        raise NotChecked("the folder of the database cannot be seen from here", way_out) from None
    facts: Facts = {"free_bytes": usage.free, "total_bytes": usage.total}
    text = (
        f"{in_gibibytes(usage.free)} of {in_gibibytes(usage.total)} are free on the disk of the WAL"
    )
    if usage.free == 0:
        return disk_full()
    if usage.free < LEAST_FREE_BYTES or usage.free < LEAST_FREE_SHARE * usage.total:
        return warning(text, "free space on the disk of the server, or enlarge it", **facts)
    return ok(text, **facts)


def hosts_of(url: str) -> list[str]:
    """Return the hosts of the URL of a database, as asyncpg takes them; none for a socket."""
    parts = urlsplit(url)
    places = parts.netloc.rpartition("@")[2].split(",")
    named = [host for place in places if (host := urlsplit(f"//{place}").hostname)]
    asked = ",".join(parse_qs(parts.query).get("host", [])).split(",")
    return [unquote(host) for host in named or asked if host]


def is_here(host: str) -> bool:
    """Return True for a name of this machine, or the folder of a socket on it."""
    return host.startswith("/") or is_loopback_name(host)


def in_gibibytes(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB"
