"""What a line of the log cannot be made to look like."""

from __future__ import annotations

import io
import logging
import logging.config
from collections.abc import Callable
from typing import Any

import pytest

from brain.process.log_config import (
    LOGGING,
    WORKERS_LOGGING,
    LibraryLimit,
    LineFormatter,
)

FORGED = "a\r\n2026-01-01 00:00:00 ERROR brain: forged \x1b[2J\x9b\u2028\u202e\x00"


@pytest.mark.parametrize("config", [LOGGING, WORKERS_LOGGING])
def test_a_record_is_one_line_and_its_traceback_is_indented(config: dict[str, object]) -> None:
    formatters = config["formatters"]
    assert isinstance(formatters, dict)
    formatter = LineFormatter(formatters["line"]["fmt"])
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(formatter)
    logger = logging.getLogger("a logger of this test")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        try:
            raise ValueError(FORGED)
        except ValueError:
            logger.exception("failed: %s at postgresql://me:s3cr3t@host/d", FORGED)
    finally:
        logger.removeHandler(handler)
    first, *rest = output.getvalue().rstrip("\n").split("\n")
    assert "forged" in first and "s3cr3t" not in first
    assert first.isprintable()
    assert rest and all(line.startswith("  ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("config", [LOGGING, WORKERS_LOGGING])
def test_no_client_can_fill_the_log_with_lines_of_a_library(config: dict[str, Any]) -> None:
    made = logging.config.DictConfigurator(dict(config))
    (limit,) = [
        made.configure_filter(dict(made.config["filters"][name]))
        for name in made.config["handlers"]["stderr"]["filters"]
    ]

    def logged(name: str, text: str, *values: object, **more: Any) -> bool:
        record = logging.getLogger(name).makeRecord(name, 30, "", 0, text, values, **more)
        return bool(limit.filter(record))

    assert logged("uvicorn.error", "Invalid HTTP request received.", exc_info=None)
    for _ in range(100):
        assert not logged("uvicorn.error", "Invalid HTTP request received.", exc_info=None)
    assert logged("uvicorn.error", "Unsupported upgrade request.", exc_info=None)
    for number in range(1000):
        logged("asyncio", f"Exception in callback of {number}", exc_info=None)
    assert not logged("asyncio", "one more", exc_info=None)
    assert logged("brain.problems", "log: failed", exc_info=None)
    assert logged("brain.problems", "log: failed", exc_info=None)


def test_the_addresses_of_objects_do_not_make_lines_differ() -> None:
    limit = LibraryLimit()

    def logged(text: str) -> bool:
        return limit.filter(logging.LogRecord("asyncio", logging.ERROR, "", 0, text, (), None))

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
        record = logging.LogRecord(
            "uvicorn.error", logging.ERROR, "", 0, "Exception in ASGI application", (), found
        )
        return limit.filter(record)

    def first() -> object:
        return int("a")

    def second() -> object:
        return int("b")

    assert [logged(first), logged(first), logged(second)] == [True, False, True]


def test_both_configurations_are_valid() -> None:
    for config in (LOGGING, WORKERS_LOGGING):
        made = logging.config.DictConfigurator(dict(config))
        formatters = config["formatters"]
        assert isinstance(formatters, dict)
        assert isinstance(made.configure_formatter(dict(formatters["line"])), LineFormatter)
