"""The nodes that serve the database: processes of brain serve."""

from __future__ import annotations

from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Facts, Finding, counted, failure, ok, warning
from brain.doctor.processes import process_of, silent_workers

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
    names_of_living = {row["name"] for row in living}
    silent = [
        row
        for row in rows
        if not row["is_alive"]
        # What has started again under the same name, as a container does, is not silent.
        and row["name"] not in names_of_living
        and (row["seconds"] is None or row["seconds"] < RECENT_SECONDS)
    ]
    examination.shared["nodes"] = [row["name"] for row in living]
    examination.shared["silent nodes"] = [row["name"] for row in silent]
    facts: Facts = {
        "nodes": [row["name"] for row in living],
        "clients": sum(row["clients"] for row in living),
    }
    hung = [pid for row in silent if (pid := process_of(row["name"])) is not None]
    hung += silent_workers(facts["nodes"])
    if hung:
        return of_hung(list(dict.fromkeys(hung)), facts)
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
            f"serving this database: {counted(len(living), 'node')}; without a report for 5 s and"
            f" more: {names}",
            "is that process hung, or cut off from the database? If it was killed, it is forgotten"
            " within seconds",
            **facts,
        )
    nodes, clients = counted(len(living), "node"), counted(facts["clients"], "client")
    return ok(f"serving this database: {nodes}, with {clients}", **facts)


def of_hung(processes: list[int], facts: Facts) -> Finding:
    """Return which processes of this machine run without reporting."""
    numbers = " ".join(map(str, processes))
    return failure(
        f"the process {numbers} runs on this machine and does not report to the database: it hangs",
        f"kill -9 {numbers}: its supervisor starts another one; with --workers a hung worker is"
        " replaced after BRAIN_WORKER_TIMEOUT_SECONDS",
        hung=processes,
        **facts,
    )
