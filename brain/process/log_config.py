"""Where log lines go, and how they look."""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any

from brain.log_limit import LogLimit
from brain.problems import printable

ADDRESS = re.compile("0x[0-9a-f]+")


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
        line, _, rest = super().format(record).partition("\n")
        return "\n".join((line, *(f"  {printable(each)}" for each in rest.splitlines())))


class LibraryLimit(logging.Filter):
    """
    Leaves out lines of uvicorn and of other libraries that were logged within a minute.

    They have no limit, and some are logged for each request of any client. Brain limits its own
    lines where it logs them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._limit = LogLimit()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == "brain":
            return True
        # asyncio writes the address of an object into the message: another for each connection.
        kind = ADDRESS.sub("", str(record.msg))
        return self._limit.allows(f"{record.name} {kind} {origin(record)}")


def origin(record: logging.LogRecord) -> str:
    """Return where the exception of a record was raised; different ones may have the same text."""
    error = record.exc_info[1] if record.exc_info else None
    frames = traceback.extract_tb(error.__traceback__) if error else []
    return f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def line_formatter(start: str) -> dict[str, Any]:
    """Return the configuration of a formatter whose lines begin with `start`."""
    return {"()": LineFormatter, "fmt": f"{start} %(levelname)s %(name)s: %(message)s"}


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": line_formatter("%(asctime)s")},
    "filters": {"libraries": {"()": LibraryLimit}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["libraries"],
        }
    },
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
