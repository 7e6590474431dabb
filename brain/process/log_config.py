"""Where log lines go, and which of them."""

from __future__ import annotations

import logging
import logging.config
import re
import sys
import threading
import traceback
from types import TracebackType

from brain.log_events import CRASHED, EXCEPTION_IGNORED, THREAD_DIED
from brain.log_limit import LimitedLog, LogLimit

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
        error = record.exc_info[1] if record.exc_info else None
        left_out = self._limit.take(f"{record.name} {kind} {origin(error)}")
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out} more since the last line)"
            record.args = None
            record.left_out = left_out
        return left_out is not None


def origin(error: BaseException | None) -> str:
    """Return where an exception was raised; different ones may have the same text."""
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
    uncaught = UncaughtErrors()
    sys.unraisablehook = uncaught.log_ignored
    threading.excepthook = uncaught.log_dead_thread


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


class UncaughtErrors:
    """Logs exceptions that nothing has caught, and that end no process: within a limit."""

    def __init__(self) -> None:
        self._log = LimitedLog(logger)

    def log_dead_thread(self, died: threading.ExceptHookArgs) -> None:
        """Log an exception that ends a thread."""
        error = died.exc_value
        if not issubclass(died.exc_type, SystemExit):
            name = "" if died.thread is None else died.thread.name
            kind, text = f"thread {origin(error)}", "the thread %r died"
            self._log.log(THREAD_DIED, kind, text, name, error=error, thread_name=name)

    def log_ignored(self, ignored: sys.UnraisableHookArgs) -> None:
        """Log an exception that could not be raised."""
        error = ignored.exc_value
        kind = f"ignored {origin(error)}"
        self._log.log(EXCEPTION_IGNORED, kind, "an exception was ignored", error=error)
