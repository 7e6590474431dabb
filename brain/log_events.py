"""
Every event that Brain logs, by its name.

docs/logs.md says of each what it means and what to do. A name, once released, stays: programs that
read the log go by it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A kind of line of the log."""

    name: str
    level: int
    fields: tuple[str, ...] = ()
    """What such a line has besides its text; a field may be missing."""

    def log(
        self,
        logger: logging.Logger,
        text: str,
        *values: object,
        error: BaseException | None = None,
        left_out: int = 0,
        **fields: object,
    ) -> None:
        """
        Log a line: `text % values` for a person, `fields` for a program.

        With the traceback of `error`; `left_out` is how many such lines were left out before.
        """
        if not logger.isEnabledFor(self.level):
            return
        if left_out:
            text, values = f"{text} (%d more since the last line)", (*values, left_out)
            fields["left_out"] = left_out
        extra = {"event": self.name, **fields}
        logger.log(self.level, text, *values, exc_info=error, extra=extra, stacklevel=2)


# The start and the end.
READY = LogEvent("ready", INFO, ("version", "host", "port", "workers"))
COMMAND_FAILED = LogEvent("command_failed", ERROR, ("error_type", "exit_code"))
CRASHED = LogEvent("crashed", CRITICAL)
SERVICE_MANAGER_UNREACHABLE = LogEvent("service_manager_unreachable", WARNING)
TASK_DIED = LogEvent("task_died", CRITICAL, ("task",))

# Settings and the database, at the start.
UNKNOWN_SETTING = LogEvent("unknown_setting", WARNING)
SETTINGS_RELOADED = LogEvent("settings_reloaded", INFO, ("changed",))
RESTART_NEEDED = LogEvent("restart_needed", WARNING, ("changed",))
RELOAD_FAILED = LogEvent("reload_failed", ERROR)
SUPERUSER = LogEvent("superuser", WARNING, ("role",))
DATABASE_WARNING = LogEvent("database_warning", WARNING)
SYSTEM_NOT_LOADED = LogEvent("system_not_loaded", WARNING, ("system",))
SYSTEM_PROBLEM = LogEvent("system_problem", WARNING)
SYSTEM_FITS = LogEvent("system_fits", INFO)
NO_SAMPLES = LogEvent("no_samples", WARNING, ("system",))

# Workers.
WORKER_READY = LogEvent("worker_ready", INFO, ("worker", "worker_process"))
WORKER_ENDED = LogEvent("worker_ended", WARNING, ("worker", "pause_seconds"))
WORKER_HUNG = LogEvent("worker_hung", ERROR, ("worker", "worker_process"))
WORKER_CRASHED = LogEvent("worker_crashed", CRITICAL, ("worker",))
WORKERS_REPLACING = LogEvent("workers_replacing", INFO)
WORKER_REPLACED = LogEvent("worker_replaced", INFO, ("worker", "worker_process"))
WORKER_DRAINED = LogEvent("worker_drained", INFO, ("worker", "worker_process"))
WORKER_KILLED = LogEvent("worker_killed", WARNING, ("worker", "worker_process"))
WORKER_NOT_REPLACED = LogEvent("worker_not_replaced", ERROR, ("worker",))
WORKERS_REPLACED = LogEvent("workers_replaced", INFO)
NOT_REPLACEABLE = LogEvent("not_replaceable", WARNING)
WORKERS_FAILED = LogEvent("workers_failed", CRITICAL)

# The log in the database.
LOG_FOLLOWED = LogEvent("log_followed", INFO, ("cursor",))
LOG_UNREACHABLE = LogEvent("log_unreachable", WARNING)
LOG_STARTED_OVER = LogEvent("log_started_over", WARNING, ("cursor",))
FEEDS_UNREADABLE = LogEvent("feeds_unreadable", WARNING)
SESSION_NOT_ENDED = LogEvent("session_not_ended", DEBUG, ("backend",))

# What goes wrong and is lived with.
PROBLEM = LogEvent("problem", WARNING, ("address", "channel"))

# Who is refused, and why.
HOST_REFUSED = LogEvent("host_refused", WARNING, ("host",))
ORIGIN_REFUSED = LogEvent("origin_refused", WARNING, ("origin", "host"))
TOKEN_REFUSED = LogEvent("token_refused", WARNING, ("reason",))
TICKET_REFUSED = LogEvent("ticket_refused", WARNING, ("reason",))
KEYS_UNREACHABLE = LogEvent("keys_unreachable", WARNING)
KEYS_WITHDRAWN = LogEvent("keys_withdrawn", WARNING)
AUTHENTICATOR_FAILED = LogEvent("authenticator_failed", ERROR)
AUTHENTICATOR_TIMED_OUT = LogEvent("authenticator_timed_out", ERROR, ("timeout_seconds",))

# Clients.
CONNECTION_CLOSED = LogEvent(
    "connection_closed",
    INFO,
    ("code", "seconds", "sent_bytes", "transport", "format", "user", "channels", "address"),
)
CONNECTIONS_CLOSED = LogEvent("connections_closed", INFO, ("count", "seconds", "codes"))
HANDSHAKE_FAILED = LogEvent("handshake_failed", ERROR)

LIBRARY_MESSAGE = "library_message"
"""The event of a line that a library has logged, such as uvicorn or asyncio."""
