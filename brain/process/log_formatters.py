"""
How log lines look.

Whatever a client or the database put into them, no line looks like another one, none controls a
terminal, and none has the password of a URL.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS, merge_record_extra
from pythonjsonlogger.orjson import OrjsonFormatter

from brain.log_events import LIBRARY_MESSAGE
from brain.problems import printable

# What orjson can write.
LARGEST_INTEGER = 2**63


class LineFormatter(logging.Formatter):
    """Writes a record as one line, and a traceback as indented lines after it."""

    def __init__(self, *, has_process: bool = False) -> None:
        """`has_process`: several processes write to the same stream."""
        process = " [%(process)d]" if has_process else ""
        super().__init__(f"%(asctime)s{process} %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        line, _, rest = super().format(record).partition("\n")
        return "\n".join((line, *(f"  {printable(each)}" for each in rest.splitlines())))


class CommandFormatter(LineFormatter):
    """Writes a record as a line of a command that a person has typed."""

    def __init__(self) -> None:
        logging.Formatter.__init__(self, "brain: %(message)s")


class JsonFormatter(OrjsonFormatter):
    """
    Writes a record as one object of JSON.

    It has the same members as every other record, and the fields of its event.
    """

    def __init__(self, worker: int | None = None) -> None:
        """`worker` is the number of this process among several."""
        super().__init__()
        self._worker = worker

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        at = datetime.fromtimestamp(record.created, UTC)
        log_data["timestamp"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["event"] = LIBRARY_MESSAGE
        log_data["message"] = record.message or str(record.msg)
        log_data["process"] = record.process
        if self._worker is not None:
            log_data["worker"] = self._worker
        if hasattr(record, "event"):
            # Libraries add what they please, such as objects of theirs.
            merge_record_extra(record, log_data, reserved=RESERVED_ATTRS)
        elif hasattr(record, "left_out"):
            log_data["left_out"] = record.left_out
        for name, value in log_data.items():
            log_data[name] = json_value(value)
        traces = filter(None, (message_dict.get("exc_info"), message_dict.get("stack_info")))
        if lines := [line for trace in traces for line in trace.splitlines()]:
            log_data["traceback"] = "\n".join(map(printable, lines))


def formatter_for(
    log_format: str,
    *,
    is_starting: bool = False,
    has_process: bool = False,
    worker: int | None = None,
) -> logging.Formatter:
    """
    Return the formatter of a process.

    While it `is_starting`, lines for people look like those of any command. See the classes.
    """
    if log_format == "json":
        return JsonFormatter(worker)
    return CommandFormatter() if is_starting else LineFormatter(has_process=has_process)


def json_value(value: object) -> object:
    """Return a value of a field as JSON can have it, without passwords and control characters."""
    match value:
        case None | bool() | float():
            return value
        case int() if abs(value) < LARGEST_INTEGER:
            return int(value)
        case str():
            return printable(value)
        case Mapping():
            return {printable(str(name)): json_value(each) for name, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [json_value(each) for each in value]
        case _:
            return printable(str(value))
