"""Which lines are logged, and at which level."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from brain.log_limit import MOST_KINDS
from brain.process.log_config import LibraryLimit, configure_logging
from brain.process.log_formatters import LineFormatter, formatter_for

LOGGERS = ("", "brain", "uvicorn")


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Put back afterwards what a configuration changes in this process."""
    root, hooks = logging.getLogger(), (sys.excepthook, sys.unraisablehook, threading.excepthook)
    handlers, levels = root.handlers[:], [logging.getLogger(name).level for name in LOGGERS]
    yield
    root.handlers[:] = handlers
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    for name, level in zip(LOGGERS, levels, strict=True):
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)


def record(name: str, text: str, *values: object, **more: Any) -> logging.LogRecord:
    more = {"exc_info": None, **more}
    return logging.getLogger(name).makeRecord(name, 30, "", 0, text, values, **more)


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize(
    ("level", "of_brain", "of_libraries"),
    [
        ("debug", logging.DEBUG, logging.WARNING),
        ("info", logging.INFO, logging.WARNING),
        ("warning", logging.WARNING, logging.WARNING),
        ("error", logging.ERROR, logging.ERROR),
    ],
)
def test_the_level_is_that_of_brain_and_no_library_says_more_than_warnings(
    level: str, of_brain: int, of_libraries: int
) -> None:
    configure_logging(LineFormatter(), level)

    assert logging.getLogger("brain.hub").getEffectiveLevel() == of_brain
    for library in ("uvicorn.error", "asyncio", "websockets"):
        assert logging.getLogger(library).getEffectiveLevel() == of_libraries


@pytest.mark.usefixtures("own_logging")
def test_an_error_that_nothing_has_caught_is_a_line_of_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(formatter_for("json"), "info")

    def fail() -> None:
        raise ValueError("postgresql://me:s3cr3t@h/d")

    class Failing:
        def __del__(self) -> None:
            fail()

    for _ in range(3):  # the others are left out
        thread = threading.Thread(target=fail, name="failing")
        thread.start()
        thread.join()
        Failing()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)

    text = capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["event"] for line in lines] == ["thread_died", "exception_ignored", "crashed"]
    assert all("ValueError: postgresql://me:***@h/d" in line["traceback"] for line in lines)


def test_no_client_can_fill_the_log_with_lines_of_a_library() -> None:
    limit = LibraryLimit()

    def logged(name: str, text: str, *values: object) -> bool:
        return limit.filter(record(name, text, *values))

    assert logged("uvicorn.error", "Invalid HTTP request received.")
    for _ in range(100):
        assert not logged("uvicorn.error", "Invalid HTTP request received.")
    assert logged("uvicorn.error", "Unsupported upgrade request.")
    lines = [logged("asyncio", f"Exception in callback of {number}") for number in range(1000)]
    assert lines.count(True) < MOST_KINDS
    assert not logged("asyncio", "one more")
    assert logged("brain.problems", "log: failed")
    assert logged("brain.problems", "log: failed")


def test_the_next_line_of_a_library_has_the_number_of_those_that_were_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = LibraryLimit()
    assert limit.filter(record("uvicorn.error", "refused %s", "a"))
    assert not limit.filter(record("uvicorn.error", "refused %s", "b"))
    monkeypatch.setattr("brain.log_limit.BETWEEN_LINES_SECONDS", 0.0)

    last = record("uvicorn.error", "refused %s", "100 %")
    assert limit.filter(last)
    assert last.getMessage() == "refused 100 % (1 more since the last line)"
    assert last.left_out == 1  # type: ignore[attr-defined]


def test_the_addresses_of_objects_do_not_make_lines_differ() -> None:
    limit = LibraryLimit()

    def logged(text: str) -> bool:
        return limit.filter(record("asyncio", text))

    lines = [f"Fatal error\nprotocol: <HttpProtocol object at {n:#x}>" for n in range(3)]
    assert [logged(line) for line in lines] == [True, False, False]
    assert logged("Fatal error\nprotocol: <WebSocketProtocol object at 0x0>")


def test_the_same_line_about_another_mistake_is_logged() -> None:
    limit = LibraryLimit()

    def logged(mistake: Callable[[], object]) -> bool:
        try:
            mistake()
        except Exception as error:
            found = (type(error), error, error.__traceback__)
        return limit.filter(
            record("uvicorn.error", "Exception in ASGI application", exc_info=found)
        )

    def first() -> object:
        return int("a")

    def second() -> object:
        return int("b")

    assert [logged(first), logged(first), logged(second)] == [True, False, True]
