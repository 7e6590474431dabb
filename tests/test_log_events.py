"""Every line that Brain logs has an event, and docs/logs.md has every event."""

from __future__ import annotations

import ast
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brain import log_events
from brain.log_events import LIBRARY_MESSAGE, LogEvent

ROOT = Path(__file__).parent.parent
# What logs by itself: the events, what limits them, and the client, which is part of other programs
# and has no log of its own.
EXEMPT = ("brain/log_events.py", "brain/log_limit.py", "brain/client/")
# Of every line, or of every logged event.
MEMBERS = {"timestamp", "level", "logger", "event", "message", "process", "traceback", "left_out"}
METHODS = {"debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "log"}

EVENTS = {name: value for name, value in vars(log_events).items() if isinstance(value, LogEvent)}
BY_NAME = {event.name: event for event in EVENTS.values()}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in Brain's own code, with where it stands."""
    for path in sorted((ROOT / "brain").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if not name.startswith(EXEMPT):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield f"{name}:{node.lineno}", node


def logged() -> Iterator[tuple[str, LogEvent, set[str]]]:
    """Yield each place where an event is logged, with the fields that it gets there."""
    for place, call in calls():
        if isinstance(call.func, ast.Attribute) and call.func.attr == "log":
            first = call.args[0] if call.args else None
            for node in (call.func.value, first):
                if isinstance(node, ast.Name) and node.id in EVENTS:
                    named = {word.arg or "**" for word in call.keywords}
                    yield place, EVENTS[node.id], named - {"error", "left_out"}
        elif ast.unparse(call.func) == "log_process":  # of `brain.process.worker_slot`
            yield place, EVENTS[ast.unparse(call.args[1])], {"worker", "worker_process"}


def documented() -> dict[str, list[str]]:
    """Return the cells of the rows of the table of events, by the name of the event."""
    rows = {}
    for line in (ROOT / "docs" / "logs.md").read_text().partition("## Events")[2].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells[1:]
    return rows


def test_no_line_is_logged_without_an_event() -> None:
    nameless = [
        f"{place} {ast.unparse(call.func)}"
        for place, call in calls()
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in METHODS
        and re.search(r"\blog(ger|ging)?\b|getLogger", ast.unparse(call.func.value))
        and not ast.unparse(call.func).endswith("_log.log")
        and ast.unparse(call.func) != "log.log"
    ]
    assert nameless == []


def test_a_limited_line_has_an_event() -> None:
    for place, call in calls():
        if ast.unparse(call.func).endswith("_log.log") or ast.unparse(call.func) == "log.log":
            assert ast.unparse(call.args[0]) in EVENTS, place


def test_every_event_is_logged_somewhere_with_the_fields_that_it_has() -> None:
    fields: dict[str, set[str]] = defaultdict(set)
    for place, event, named in logged():
        assert named <= set(event.fields), place
        fields[event.name] |= named
    assert {name: set(event.fields) for name, event in BY_NAME.items()} == fields


def test_the_table_of_events_lists_every_event_and_no_other() -> None:
    assert documented().keys() == {*BY_NAME, LIBRARY_MESSAGE}


@pytest.mark.parametrize("event", BY_NAME.values(), ids=lambda event: event.name)
def test_the_table_of_events_has_the_level_and_the_fields_of_each(event: LogEvent) -> None:
    level, fields, meaning, *_ = documented()[event.name]

    assert level == logging.getLevelName(event.level).lower()
    assert tuple(re.findall(r"`(\w+)`", fields)) == event.fields
    assert meaning


@pytest.mark.parametrize("event", BY_NAME.values(), ids=lambda event: event.name)
def test_an_event_can_be_logged_and_hides_no_member_of_its_line(
    event: LogEvent, caplog: pytest.LogCaptureFixture
) -> None:
    assert re.fullmatch("[a-z]+(_[a-z]+)*", event.name)
    assert not MEMBERS & set(event.fields)
    with caplog.at_level(logging.DEBUG):
        values: dict[str, Any] = dict.fromkeys(event.fields, "value")
        event.log(logging.getLogger("brain.test"), "text", **values)

    (record,) = caplog.records
    assert (record.event, record.levelno) == (event.name, event.level)  # type: ignore[attr-defined]
    assert [getattr(record, field) for field in event.fields] == ["value"] * len(event.fields)


def test_events_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(EVENTS)
