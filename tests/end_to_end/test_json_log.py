"""`brain serve --log-format json`, read as a program reads it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.brain import RunningBrain, becomes, brain, running

COMMON = {"timestamp", "level", "logger", "event", "message", "process"}


def lines_of(text: str) -> list[dict[str, Any]]:
    """Return the lines of a log, all of which are objects with the members that all have."""
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(line.keys() >= COMMON for line in lines), text
    return lines


def events(output: Path, name: str) -> list[dict[str, Any]]:
    """Return the lines about an event; the last line may not be complete yet."""
    complete, _, _ = output.read_text().rpartition("\n")
    return [line for line in lines_of(complete) if line["event"] == name]


@asynccontextmanager
async def logging_brain(
    folder: Path, *arguments: str, **environment: str
) -> AsyncIterator[RunningBrain]:
    """Run a Brain that logs in JSON, until the context ends."""
    command = (sys.executable, "-m", "brain", "serve", "--port=0", "--log-format=json", *arguments)
    output = folder / "brain.log"
    async with running(command, output, environment) as process:
        await becomes(lambda: events(output, "ready") or process.returncode is not None)
        (ready,) = events(output, "ready")
        yield RunningBrain(process, ready["port"], output)


async def test_a_single_process_logs_nothing_but_json(tmp_path: Path, database: str) -> None:
    async with logging_brain(tmp_path, f"--database-url={database}", BRAIN_NO_SETTING="x") as one:
        (unknown,) = events(one.output, "unknown_setting")
        assert unknown["message"] == "BRAIN_NO_SETTING is no setting"
        assert unknown["level"] == "warning"
        (followed,) = events(one.output, "log_followed")
        assert followed["cursor"] in followed["message"]
        one.process.terminate()
        assert await one.stopped() == 0
    lines = lines_of(one.output.read_text())
    assert {line["process"] for line in lines} == {one.process.pid}
    assert all("worker" not in line for line in lines)


async def test_workers_and_their_supervisor_log_json_with_the_number_of_the_worker(
    tmp_path: Path, database: str
) -> None:
    options = (f"--database-url={database}", "--workers=2")
    async with logging_brain(tmp_path, *options) as several:
        ready = {line["worker"]: line for line in events(several.output, "worker_ready")}
        assert ready.keys() == {1, 2}
        assert {line["process"] for line in ready.values()} == {several.process.pid}
        followed = {line["worker"]: line for line in events(several.output, "log_followed")}
        assert {one["process"] for one in followed.values()} == {
            one["worker_process"] for one in ready.values()
        }
        os.kill(ready[2]["worker_process"], signal.SIGKILL)
        await becomes(lambda: events(several.output, "worker_ended"))
        (ended,) = events(several.output, "worker_ended")
        assert (ended["worker"], ended["level"]) == (2, "warning")
        several.process.terminate()
        assert await several.stopped() == 0
    lines_of(several.output.read_text())


@pytest.mark.parametrize(
    ("typed", "environment", "status", "error_type"),
    [
        ("serve --log-format=json --port=abc", {}, 2, "UsageError"),
        ("serve --log-format json --prot=1", {}, 2, "NoSuchOption"),
        ("serve --workers=0", {"BRAIN_LOG_FORMAT": "json"}, 2, "UsageError"),
        ("serve", {"brain_log_format": "json", "BRAIN_JWT_SECRET": "secret"}, 2, "UsageError"),
        (
            "serve --log-format=json --database-url=postgresql://me:secret@127.0.0.1:1/d --port=0",
            {},
            1,
            "DatabaseUnreachable",
        ),
    ],
)
async def test_an_error_at_the_start_is_a_line_of_json(
    typed: str, environment: dict[str, str], status: int, error_type: str
) -> None:
    ended = await brain(*typed.split(), **environment)

    assert (ended.status, ended.stdout) == (status, "")
    (line,) = lines_of(ended.stderr)
    assert (line["event"], line["level"]) == ("command_failed", "error")
    assert (line["exit_code"], line["error_type"]) == (status, error_type)
    assert "secret" not in ended.stderr


@pytest.mark.parametrize(
    ("typed", "environment"),
    [
        ("serve --log-format=text --port=abc", {"BRAIN_LOG_FORMAT": "json"}),
        ("serve --log-format=xml", {}),
        ("watches --database-url=here", {"BRAIN_LOG_FORMAT": "json"}),
    ],
)
async def test_elsewhere_an_error_is_a_line_for_a_person(
    typed: str, environment: dict[str, str]
) -> None:
    ended = await brain(*typed.split(), **environment)

    assert ended.status == 2
    assert ended.stderr.startswith("brain: ") and ended.stderr.count("\n") == 1


async def test_a_level_leaves_out_what_is_below_it(tmp_path: Path, database: str) -> None:
    options = (f"--database-url={database}", "--log-level=WARNING")
    command = (sys.executable, "-m", "brain", "serve", "--port=0", *options)
    output = tmp_path / "brain.log"
    async with running(command, output, {"BRAIN_NO_SETTING": "x"}) as process:
        await becomes(lambda: "is ready" in output.read_text())
        process.terminate()
        assert await process.wait() == 0
    assert "following the log" not in output.read_text()
    assert output.read_text().startswith("brain: BRAIN_NO_SETTING is no setting\n")
