from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest

from brain.doctor.checks import CHECKS
from tests.end_to_end.brain import Ended, RunningBrain, brain

SECRET = "0123456789abcdef0123456789abcdef"
# What a machine of tests may be short of, and what is never checked.
OF_THE_MACHINE = {"database.disk", "database.disk_space", "database.connections", "host.memory"}
NOT_CHECKED = {"connection.idle"}


def by_id(ended: Ended) -> dict[str, dict[str, Any]]:
    """Return the findings of `brain doctor --json`."""
    return {each["id"]: each for each in json.loads(ended.stdout)["checks"]}


async def test_a_sound_brain_is_found_so_as_text_and_as_json(
    shared_brain: RunningBrain, shared_database: str
) -> None:
    options: tuple[str, ...] = (
        "--url",
        shared_brain.http,
        "--database-url",
        shared_database,
        "--systems",
        "all",
    )
    options = (*options, "--channel", "tasks", "--where", "status=running")
    document = await brain("doctor", *options, "--json")
    text = await brain("doctor", *options)

    findings = by_id(document)
    assert list(findings) == [check.id for check in CHECKS]
    wrong = {id: each for id, each in findings.items() if each["verdict"] == "failure"}
    assert wrong.keys() <= OF_THE_MACHINE, wrong
    assert findings["event.delivered"]["verdict"] == "ok"
    assert findings["host.open_files"]["verdict"] in ("ok", "warning")
    assert findings["connection.idle"]["verdict"] == "not checked"
    assert document.status == (1 if wrong else 0)
    assert document.stderr == text.stderr == ""
    assert "Verdict: " in text.stdout


async def test_a_failure_is_the_verdict_and_the_exit_status(
    shared_brain: RunningBrain, shared_database: str
) -> None:
    connection = await asyncpg.connect(shared_database)
    await connection.execute("ALTER TABLE tasks DISABLE TRIGGER ALL")
    try:
        ended = await brain("doctor", "--database-url", shared_database)
    finally:
        await connection.execute("ALTER TABLE tasks ENABLE TRIGGER ALL")
        await connection.close()

    assert ended.status == 1
    assert "(watches.triggers)" in ended.stdout.partition("Verdict: failure: ")[2]
    assert "Way out: ALTER TABLE public.tasks ENABLE TRIGGER" in ended.stdout


async def test_a_database_that_is_down_is_the_verdict(tmp_path: Path) -> None:
    url = "postgresql://ann:hidden@127.0.0.1:1/shop"
    ended = await brain("doctor", HOME=str(tmp_path), BRAIN_DATABASE_URL=url, BRAIN_TOKEN="x.y.z")

    assert ended.status == 1
    assert "Verdict: failure: cannot connect to postgresql://ann@127.0.0.1:1/shop" in ended.stdout
    assert "hidden" not in ended.stdout + ended.stderr


async def test_without_anything_to_examine_it_says_what_to_pass_and_starts_nothing(
    tmp_path: Path,
) -> None:
    ended = await brain("doctor", HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path))

    assert ended.status == 0
    for option in ("--database-url", "--url", "--metrics-url", "--token-file", "--channel"):
        assert option in ended.stdout
    assert list(tmp_path.iterdir()) == []


async def test_a_setting_that_is_wrong_is_a_finding_and_not_the_end(tmp_path: Path) -> None:
    ended = await brain(
        *("doctor", "--json"),
        HOME=str(tmp_path),
        BRAIN_PORT="many",
        BRAIN_JWT_SECRET="short",
        BRAIN_RETENTION_SECOND="60",
        BRAIN_DATABASE_URL="postgresql://127.0.0.1:1/shop",
    )

    findings = by_id(ended)
    assert ended.status == 1
    assert json.loads(ended.stdout)["cause"] == "settings.valid"
    assert "BRAIN_PORT" in findings["settings.valid"]["text"]
    assert "BRAIN_JWT_SECRET" in findings["settings.valid"]["details"][0]
    assert findings["settings.variables"]["verdict"] == "warning"
    assert "BRAIN_RETENTION_SECONDS" in findings["settings.variables"]["text"]
    assert findings["database.reachable"]["verdict"] == "failure"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "nonsense"),
        ("--url", "http://user:password@localhost"),
        ("--token-file", "/no/such/file"),
        ("--where", "nonsense"),
        ("--metrics-url", "nonsense"),
        ("unknown",),
    ],
)
async def test_wrong_usage_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    ended = await brain("doctor", *arguments)

    assert ended.status == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1


async def test_an_expired_token_is_the_verdict_and_is_not_printed(tmp_path: Path) -> None:
    token = jwt.encode({"sub": "ann", "exp": time.time() - 100}, SECRET)
    file = tmp_path / "token"
    file.write_text(token)
    ended = await brain(
        *("doctor", "--token-file", str(file)), HOME=str(tmp_path), BRAIN_JWT_SECRET=SECRET
    )

    assert ended.status == 1
    assert "Verdict: failure: the token has expired" in ended.stdout
    assert token not in ended.stdout and SECRET not in ended.stdout
