"""The watched tables: which there are, whether their triggers fire, and their problems."""

from __future__ import annotations

import asyncpg

from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, counted, failure, ok, warning

PROBLEMS = """
    SELECT w.channel, w.table_name AS table, brain.name_problem(w) AS name_problem,
           brain.column_problems(w) AS column_problems, brain.trigger_problem(w) AS trigger_problem,
           w.is_replicated, w.relation::oid AS relation, w.id,
           EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relation) AS exists
      FROM brain.watched w ORDER BY w.channel
"""
OTHERS = "SELECT channel, problems FROM brain.watches WHERE problems <> '{}' ORDER BY channel"
# Of a watch, and of its partitions.
TRIGGERS = """
    SELECT format('%I.%I', n.nspname, c.relname) AS table, quote_ident(t.tgname) AS name,
           t.tgenabled::text AS enabled
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE t.tgfoid = brain.capture_of($1) AND t.tgenabled <> $2 ORDER BY 1, 2
"""
# Sessions with `replica` fire no ordinary triggers; where that is set for sessions to come.
REPLICA_ROLE = """
    SELECT CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0
                THEN format('ALTER ROLE %s IN DATABASE %I RESET session_replication_role',
                            s.setrole::regrole, current_database())
                WHEN s.setrole <> 0
                THEN format('ALTER ROLE %s RESET session_replication_role', s.setrole::regrole)
                WHEN s.setdatabase <> 0
                THEN format('ALTER DATABASE %I RESET session_replication_role', current_database())
                ELSE 'ALTER ROLE ALL RESET session_replication_role' END AS command,
           CASE WHEN s.setrole <> 0 THEN s.setrole::regrole::text END AS role
      FROM pg_db_role_setting s
     WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
       AND 'session_replication_role=replica' = ANY (s.setconfig)
    UNION ALL
    SELECT 'ALTER SYSTEM RESET session_replication_role; SELECT pg_reload_conf()', NULL
      FROM pg_settings
     WHERE name = 'session_replication_role' AND setting = 'replica'
       AND source IN ('configuration file', 'command line', 'environment variable')
"""
ORDINARY_WATCH = "SELECT EXISTS (SELECT FROM brain.watched WHERE NOT is_replicated)"
HOW = {"D": "disabled", "R": "for replicas only (ENABLE REPLICA)", "O": "not for replicas"}


@check("watches.present")
async def present(examination: Examination) -> Finding:
    """At least one table is watched."""
    connection = await examination.migrated()
    channels = [
        row["channel"]
        for row in await connection.fetch("SELECT channel FROM brain.watched ORDER BY channel")
    ]
    if not channels:
        return warning(
            "no table is watched: clients get published messages alone",
            "brain watch TABLE --columns A,B",
            channels=[],
        )
    shown = ", ".join(channels[:10]) + (" …" if len(channels) > 10 else "")
    return ok(f"watched: {counted(len(channels), 'table')}, as {shown}", channels=channels)


@check("watches.triggers")
async def triggers(examination: Examination) -> Finding:
    """The triggers that capture changes are there, and fire."""
    connection = await examination.migrated()
    lines: list[str] = []
    commands: list[str] = []
    for watch in await connection.fetch(PROBLEMS):
        if watch["exists"] and watch["trigger_problem"] is not None:
            found, command = await of_watch(connection, watch)
            lines += found
            commands.append(command)
    if lines:
        return failure(lines[0], "; ".join(dict.fromkeys(commands)), lines[1:])
    replicas = await connection.fetch(REPLICA_ROLE)
    if replicas and await connection.fetchval(ORDINARY_WATCH):
        return of_replicas(replicas)
    return ok("the capture triggers of all watched tables are there and enabled")


def of_replicas(settings: list[asyncpg.Record]) -> Finding:
    """Return what it means that session_replication_role is replica: of all, or of some roles."""
    of_all = [row for row in settings if row["role"] is None]
    of_roles = [row for row in settings if row["role"] is not None]
    commands = [row["command"] for row in (*of_all, *of_roles)]
    way_out = f"{commands[0]}; or watch the table with brain watch … --replicated"
    if of_all:
        return failure(
            "session_replication_role is set to replica: in such sessions no capture trigger fires",
            way_out,
            commands[1:],
        )
    roles = ", ".join(dict.fromkeys(row["role"] for row in of_roles))
    return warning(
        f"session_replication_role is set to replica for {roles}: no capture trigger fires for"
        " what that writes, as is right for a subscription or a restore",
        way_out,
        commands[1:],
    )


async def of_watch(connection: asyncpg.Connection, watch: asyncpg.Record) -> tuple[list[str], str]:
    """Return what is wrong with the triggers of a watch, and the command that ends it."""
    expected = "A" if watch["is_replicated"] else "O"
    wrong = await connection.fetch(TRIGGERS, watch["id"], expected.encode())
    problem, _, command = watch["trigger_problem"].rpartition(": brain watch ")
    if not wrong:
        return [f"channel {watch['channel']}: {problem}"], f"brain watch {command}"
    how = "ENABLE ALWAYS" if watch["is_replicated"] else "ENABLE"
    statements = [f"ALTER TABLE {row['table']} {how} TRIGGER {row['name']}" for row in wrong]
    lines = [
        f"the trigger {row['name']} of {row['table']} is {HOW.get(row['enabled'], 'not enabled')}:"
        f" changes there are not seen on the channel {watch['channel']}"
        for row in wrong
    ]
    return lines, "; ".join(statements) + f"; or brain watch {command}"


@check("watches.tables")
async def tables(examination: Examination) -> Finding:
    """Each watched table is still there, under its name."""
    connection = await examination.migrated()
    gone = [
        f"channel {row['channel']}: {row['name_problem']}"
        for row in await connection.fetch(PROBLEMS)
        if row["name_problem"] is not None
    ]
    if gone:
        return failure(gone[0], "run the command that the line names", gone[1:])
    return ok("each watched table is there, under its name")


@check("watches.problems")
async def problems(examination: Examination) -> Finding:
    """The watches have no other problem."""
    connection = await examination.migrated()
    reported = {
        text
        for row in await connection.fetch(PROBLEMS)
        for text in (row["name_problem"], row["trigger_problem"])
    }
    lines = [
        f"channel {row['channel']}: {text}"
        for row in await connection.fetch(OTHERS)
        for text in row["problems"]
        if text not in reported
    ]
    if lines:
        return warning(
            lines[0], "run the command that the line names; brain watches lists all", lines[1:]
        )
    return ok("no watch has a problem")
