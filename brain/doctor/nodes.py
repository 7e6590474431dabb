"""The nodes that serve the database: processes of brain serve."""

from __future__ import annotations

import socket
from pathlib import Path

from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, failure, ok, warning

# Those that expired long ago are left over by a crash of every node.
RECENT_SECONDS = 3600.0

NODES = """
    SELECT name, clients, brain.is_recent(seen_at) AS is_alive,
           CASE WHEN seen_at > '-infinity'
                THEN extract(epoch FROM clock_timestamp() - seen_at)::float8 END AS seconds
      FROM brain.nodes ORDER BY name
"""
START = "brain serve, with the same BRAIN_DATABASE_URL; docs/operating.md"


@check("nodes.alive")
async def alive(examination: Examination) -> Finding:
    """At least one node serves this database, and each one reports."""
    connection = await examination.migrated()
    rows = await connection.fetch(NODES)
    living = [row for row in rows if row["is_alive"]]
    silent = [
        row
        for row in rows
        if not row["is_alive"] and (row["seconds"] is None or row["seconds"] < RECENT_SECONDS)
    ]
    examination.shared["nodes"] = [row["name"] for row in living]
    examination.shared["silent nodes"] = [row["name"] for row in silent]
    facts = {"nodes": [row["name"] for row in living], "clients": sum(r["clients"] for r in living)}
    hung = [row["name"] for row in silent if process_of(row["name"]) is not None]
    if hung:
        return failure(
            f"the process of node {hung[0]!r} runs and does not report: it hangs",
            f"kill -9 {hung[0].rpartition(' ')[2]}: its supervisor starts another one; with"
            " --workers a hung worker is replaced after BRAIN_WORKER_TIMEOUT_SECONDS",
            [f"node {name!r} as well" for name in hung[1:]],
            **facts,
        )
    if not living:
        last = (
            f"; the last one reported {silent[0]['seconds']:.0f} s ago"
            if silent and silent[0]["seconds"]
            else ""
        )
        return failure(f"no node serves this database{last}", START, **facts)
    if silent:
        names = ", ".join(repr(row["name"]) for row in silent)
        return warning(
            f"{len(living)} nodes serve this database; without a report for 5 s and more: {names}",
            "is that process hung, or cut off from the database? If it was killed, it is forgotten"
            " within seconds",
            **facts,
        )
    return ok(f"{len(living)} nodes serve this database, with {facts['clients']} clients", **facts)


def process_of(node: str) -> int | None:
    """Return the process of a node, if it runs on this machine."""
    host, _, number = node.rpartition(" ")
    if host != socket.gethostname() or not number.isdigit():
        return None
    try:
        command = (Path("/proc") / number / "cmdline").read_bytes()
    except OSError:
        return None
    return int(number) if b"brain" in command else None
