"""Where log lines go, and which of them."""

from __future__ import annotations

import logging
import logging.config
import re
import sys
import traceback
from types import TracebackType

from brain.log_events import CRASHED
from brain.log_limit import LogLimit

ADDRESS = re.compile("0x[0-9a-f]+")

logger = logging.getLogger(__name__)


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
        left_out = self._limit.take(f"{record.name} {kind} {origin(record)}")
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out} more since the last line)"
            record.args = None
            record.left_out = left_out
        return left_out is not None


def origin(record: logging.LogRecord) -> str:
    """Return where the exception of a record was raised; different ones may have the same text."""
    error = record.exc_info[1] if record.exc_info else None
    frames = traceback.extract_tb(error.__traceback__) if error else []
    return f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def configure_logging(formatter: logging.Formatter, log_level: str) -> None:
    """Have every line of this process from now on go to standard error."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": lambda: formatter}},
            "filters": {"libraries": {"()": LibraryLimit}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": "line",
                    "filters": ["libraries"],
                }
            },
            "root": {"handlers": ["stderr"]},
        }
    )
    set_level(log_level)
    logging.captureWarnings(True)
    sys.excepthook = log_crash


def set_level(log_level: str) -> None:
    """Log lines of Brain from this level on: of libraries, warnings and errors at most."""
    level = logging.getLevelNamesMapping()[log_level.upper()]
    logging.getLogger("brain").setLevel(level)
    # At INFO uvicorn logs the address of every WebSocket, and with it what stands in the query; at
    # DEBUG all that is sent and received.
    for name in ("", "uvicorn"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def log_crash(kind: type[BaseException], error: BaseException, found: TracebackType | None) -> None:
    """Log an exception that nothing has caught, and that ends the process."""
    if issubclass(kind, KeyboardInterrupt):
        return
    CRASHED.log(logger, "Brain has crashed: %s", kind.__name__, error=error)
