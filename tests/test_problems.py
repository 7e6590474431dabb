from __future__ import annotations

import re
from pathlib import Path

import pytest

from brain.problems import (
    EXAMPLE_URL,
    KEEP_SECONDS,
    KINDS,
    MOST_ADDRESSES,
    Problems,
    printable,
)

ROOT = Path(__file__).parents[1]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def problems(clock: Clock) -> Problems:
    return Problems(clock)


def test_problems_are_counted_by_their_address(problems: Problems) -> None:
    problems.report("log", "first")
    problems.report("retention", "a step failed")
    problems.report("log", "second")

    assert [(each.address, each.text, each.count) for each in problems.recent()] == [
        ("log", "second", 2),
        ("retention", "a step failed", 1),
    ]


def test_an_address_is_logged_once_a_minute_with_the_number_left_out(
    problems: Problems, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for clock.now in (0.0, 1.0, 59.0, 60.0):
        problems.report("log", f"at {clock.now:g}")
    problems.report("feeds", "elsewhere")

    assert caplog.messages == [
        "log: at 0",
        "log: at 60 (2 more since the last line)",
        "feeds: elsewhere",
    ]


def test_what_may_be_a_bug_is_logged_with_its_traceback_the_first_time(
    problems: Problems, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for clock.now in (0.0, 60.0):
        try:
            raise KeyError("a mistake")
        except KeyError as error:
            problems.report("hub", "failed", unexpected=error)

    assert caplog.text.count("Traceback") == 1
    assert caplog.messages == ["hub: failed"] * 2


def test_what_is_known_is_counted_and_not_logged(
    problems: Problems, caplog: pytest.LogCaptureFixture
) -> None:
    problems.report("watch orders", "a trigger is disabled")
    problems.report("watch orders", "a trigger is disabled", is_known=True)

    assert problems.recent()[0].count == 2
    assert len(caplog.messages) == 1


def test_what_does_not_happen_again_is_forgotten(problems: Problems, clock: Clock) -> None:
    problems.report("log", "old")
    clock.now = 1.0
    problems.report("feeds", "younger")
    clock.now = KEEP_SECONDS

    assert [each.address for each in problems.recent()] == ["feeds"]

    problems.report("log", "new")
    assert problems.recent()[0].count == 1


def test_very_many_addresses_share_one_and_its_lines(
    problems: Problems, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for clock.now in (0.0, 1.0):
        for number in range(MOST_ADDRESSES * 2):
            problems.report(f"hub tasks {number}", "failed")

    recent = problems.recent()
    assert len(recent) == MOST_ADDRESSES + 1
    others = [each for each in recent if each.address == "hub (others)"]
    assert [each.count for each in others] == [2 * MOST_ADDRESSES]
    assert len(caplog.messages) == MOST_ADDRESSES + 1


def test_a_problem_is_one_line_of_the_log(
    problems: Problems, caplog: pytest.LogCaptureFixture
) -> None:
    problems.report("log a\nb", "Zürich\0\r\n2026 ERROR all is lost")

    assert caplog.messages == [r"log a\nb: Zürich\x00\r\n2026 ERROR all is lost"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://me:s3cr3t@h:1/d failed", "at postgresql://me:***@h:1/d failed"),
        ("postgres://me:s3@cr3t@h/d", "postgres://me:***@h/d"),
        ("postgres://:s3cr3t@h/d", "postgres://:***@h/d"),
        ("postgres://me:s3/c?r#3t@h/d", "postgres://me:***@h/d"),
        ("postgres:///d?host=/tmp&password=s3cr3t&a=b", "postgres:///d?host=/tmp&password=***&a=b"),
        ("host=h password='s3 cr3t' user=me", "host=h password=*** user=me"),
        ("host=h PASSWORD=s3cr3t", "host=h PASSWORD=***"),
        ("https://h:443/path", "https://h:443/path"),
        ("postgresql://me:password@1@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me:s3 cr3t@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me:x@s3 cr3t@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me@srv:s3cr3t@h/d", "postgresql://***@h/d"),
        ("postgresql://dom/me:s3cr3t@h/d", "postgresql://***@h/d"),
        ("postgresql:me:s3cr3t@h/d", "postgresql:me:***@h/d"),
        ("at (me:s3cr3t@h/d)", "at (me:***@h/d)"),
        ("postgres:///d?password=a's3cr3t&a=b", "postgres:///d?password=***&a=b"),
        ("postgres:///d?pass%77ord=s3cr3t", "postgres:///d?pass%77ord=***"),
        ("postgres://me@h/d reports: x@y", "postgres://me@h/d reports: x@y"),
        (f"it must read {EXAMPLE_URL}, without @", f"it must read {EXAMPLE_URL}, without @"),
        ("me@example.org at 10:30, https://h/p", "me@example.org at 10:30, https://h/p"),
    ],
)
def test_a_password_in_a_url_is_not_printed(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_problems_of_each_kind_are_counted(problems: Problems) -> None:
    for address in ("log", "log orders", "snapshot orders", "invented 7"):
        problems.report(address, "a text")
    counted = {kind: count for kind, count in problems.counts.items() if count}
    assert counted == {"log": 2, "snapshot": 1, "other": 1}


def test_every_address_in_the_code_is_of_a_known_kind() -> None:
    reported = re.compile(r"""report\(\s*f?"(\w+)|super\(\).__init__\(\s*"(\w+)",""")
    found = {
        first or second
        for path in (ROOT / "brain").rglob("*.py")
        if "client" not in path.parts and "cli" not in path.parts
        for first, second in reported.findall(path.read_text())
    }
    assert {"log", "snapshot", "watches", "filters"} <= found <= set(KINDS)
