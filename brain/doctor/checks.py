"""All checks, from cause to effect: the first failure is what to begin with."""

from __future__ import annotations

from collections.abc import Sequence

from brain.doctor import database, disk, locks, log, nodes, schema, settings, watches
from brain.doctor.check import Check

CHECKS: Sequence[Check] = (
    settings.valid,
    settings.variables,
    database.reachable,
    database.version,
    database.pooler,
    database.rights,
    database.connections,
    disk.disk_space,
    disk.disk,
    locks.locks,
    locks.transactions,
    schema.applied_migrations,
    schema.tables,
    watches.present,
    watches.tables,
    watches.triggers,
    watches.problems,
    log.retention,
    nodes.alive,
)
