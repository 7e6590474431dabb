"""Where log lines go, and how they look."""

from __future__ import annotations

import logging
from typing import Any

from brain.problems import printable


class LineFormatter(logging.Formatter):
    """
    Writes a record as one line, and a traceback as indented lines after it.

    Whatever a client or the database put into them, no line looks like another record, and none
    controls a terminal.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        line, _, traceback = super().format(record).partition("\n")
        return "\n".join((line, *(f"  {printable(each)}" for each in traceback.splitlines())))


def line_formatter(start: str) -> dict[str, Any]:
    """Return the configuration of a formatter whose lines begin with `start`."""
    return {"()": LineFormatter, "fmt": f"{start} %(levelname)s %(name)s: %(message)s"}


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": line_formatter("%(asctime)s")},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "brain": {"level": "INFO"},
        # At INFO it logs the address of every WebSocket, and with it what stands in the query.
        "uvicorn": {"level": "WARNING"},
    },
    "root": {"level": "WARNING", "handlers": ["stderr"]},
}
# All workers write to the same stream.
WORKERS_LOGGING: dict[str, Any] = {
    **LOGGING,
    "formatters": {"line": line_formatter("%(asctime)s [%(process)d]")},
}
