"""All checks, from cause to effect: the first failure is what to begin with."""

from __future__ import annotations

from collections.abc import Sequence

from brain.doctor import (
    address,
    database,
    disk,
    event,
    http,
    locks,
    log,
    nodes,
    schema,
    settings,
    watches,
    websocket,
)
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
    address.address,
    address.tls,
    http.http,
    http.host,
    http.ready,
    websocket.websocket,
    websocket.origin,
    websocket.sse,
    websocket.idle,
    websocket.same_database,
    event.logged,
    event.read,
    event.delivered,
)
