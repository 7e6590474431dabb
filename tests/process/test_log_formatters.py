"""What a line of the log cannot be made to look like."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from brain.log_events import HOST_REFUSED, PROBLEM, WORKER_READY
from brain.process.log_formatters import formatter_for

FORGED = "a\r\n2026-01-01 00:00:00 ERROR brain: forged \x1b[2J\x9b\u2028\u202e\x00"
URL = "postgresql://me:s3cr3t@host/d"


@contextmanager
def logger_with(formatter: logging.Formatter) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """Yield a logger, and what it logs."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(formatter)
    logger = logging.getLogger("a logger of this test")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield logger, output
    finally:
        logger.removeHandler(handler)


def error_with(text: str) -> Exception:
    """Return an error that was raised."""
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def in_json(log: Any, worker: int | None = None) -> dict[str, Any]:
    """Return the line of JSON that `log` logs."""
    with logger_with(formatter_for("json", worker=worker)) as (logger, output):
        log(logger)
    line = output.getvalue()
    assert line.endswith("\n") and line.count("\n") == 1
    assert line.rstrip("\n").isprintable()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


@pytest.mark.parametrize(
    "options",
    [{}, {"has_process": True}, {"is_starting": True}],
    ids=["one", "several", "starting"],
)
def test_a_record_is_one_line_of_text_and_its_traceback_is_indented(
    options: dict[str, bool],
) -> None:
    with logger_with(formatter_for("text", **options)) as (logger, output):
        PROBLEM.log(logger, "failed: %s at %s", FORGED, URL, error=error_with(FORGED + URL))
    first, *rest = output.getvalue().rstrip("\n").split("\n")
    assert "forged" in first and "s3cr3t" not in output.getvalue()
    assert first.isprintable()
    assert rest and all(line.startswith("  ") and line.isprintable() for line in rest)
    assert (f"[{os.getpid()}]" in first) == ("has_process" in options)
    assert first.startswith("brain: ") == ("is_starting" in options)


def test_a_record_is_one_object_with_a_traceback_in_one_member() -> None:
    error = error_with(FORGED + URL)
    line = in_json(lambda logger: PROBLEM.log(logger, "at %s", FORGED, error=error))

    assert "forged" in line["message"] and line["message"].isprintable()
    first, *rest = line["traceback"].split("\n")
    assert first == "Traceback (most recent call last):"
    assert "ValueError: a" in rest
    assert all(each.isprintable() for each in rest)
    assert "s3cr3t" not in json.dumps(line)


def test_the_members_of_an_object_come_in_one_order_and_the_fields_after_them() -> None:
    line = in_json(lambda logger: HOST_REFUSED.log(logger, "Host refused", host="a"), worker=2)

    at = line.pop("timestamp")
    assert at.endswith("Z") and datetime.fromisoformat(at).tzinfo is not None
    assert list(line.items()) == [
        ("level", "warning"),
        ("logger", "a logger of this test"),
        ("event", "host_refused"),
        ("message", "Host refused"),
        ("process", os.getpid()),
        ("worker", 2),
        ("host", "a"),
    ]


def test_without_several_workers_there_is_no_worker() -> None:
    assert "worker" not in in_json(lambda logger: HOST_REFUSED.log(logger, "refused"))


def test_a_line_about_a_worker_names_that_one() -> None:
    line = in_json(lambda logger: WORKER_READY.log(logger, "ready", worker=3, worker_process=9))

    assert (line["worker"], line["worker_process"]) == (3, 9)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (URL, "postgresql://me:***@host/d"),
        ("a\nb\x1b\u202e\udcff", r"a\nb\x1b\u202e\udcff"),
        (
            {"u": [URL, 1, None, True, 1.5]},
            {"u": ["postgresql://me:***@host/d", 1, None, True, 1.5]},
        ),
        ({URL: 1}, {"postgresql://me:***@host/d": 1}),
        (2**70, str(2**70)),
        (float("nan"), None),
        (ValueError(URL), "postgresql://me:***@host/d"),
        (b"\xff", r"b'\xff'"),
    ],
)
def test_a_field_has_no_password_and_no_control_characters(value: object, shown: object) -> None:
    assert in_json(lambda logger: HOST_REFUSED.log(logger, "x", host=value))["host"] == shown


def test_what_a_library_adds_to_its_records_is_left_out() -> None:
    extra = {"color_message": URL, "websocket": object(), "left_out": 4}
    line = in_json(lambda logger: logger.warning("at %s", URL, extra=extra))

    assert line["event"] == "library_message"
    assert line["left_out"] == 4
    assert "websocket" not in line and "color_message" not in line
    assert "s3cr3t" not in json.dumps(line)
