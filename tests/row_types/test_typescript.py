"""The TypeScript types are true: tsc accepts every row that Brain sends, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from brain.row_types.names import commented
from brain.row_types.typescript import typescript
from tests.end_to_end.brain import ended
from tests.row_types.conftest import Watched
from tests.row_types.rows import Rows

pytestmark = pytest.mark.postgres_versions

COMMAND = "brain types --typescript"
OPTIONS = ("--noEmit", "--strict", "--exactOptionalPropertyTypes", "--target", "es2022")
USE = 'import type { Tables } from "./rows";\n'


async def errors_of(
    tsc: Path, folder: Path, types: str, statements: Sequence[str]
) -> dict[int, str]:
    """Return what tsc finds wrong with statements that use the types, by their numbers."""
    (folder / "rows.ts").write_text(types, encoding="utf-8")
    (folder / "use.ts").write_text(USE + "\n".join(statements), encoding="utf-8")
    done = await ended((str(tsc), *OPTIONS, str(folder / "use.ts")))
    found: dict[int, str] = {}
    for place, line, text in re.findall(
        r"^\S*?(\w+\.ts)\((\d+),.*?: (error .*)$", done.stdout, re.M
    ):
        assert place == "use.ts", done.stdout
        found.setdefault(int(line) - 2, text)
    assert (done.status != 0) == bool(found), done.stdout + done.stderr
    return found


@pytest.fixture
def tsc(node_packages: Path) -> Path:
    return node_packages / "node_modules" / ".bin" / "tsc"


def assignments(rows: Rows) -> list[str]:
    return [
        f"export const row{number}: Tables[{json.dumps(channel)}] = {json.dumps(row)};"
        for number, (channel, row) in enumerate(
            (channel, row) for channel, rows in rows.items() for row in rows
        )
    ]


@pytest.mark.parametrize("may_omit", [False, True])
async def test_tsc_accepts_every_row_that_the_client_is_sent(
    watched: Watched, tsc: Path, tmp_path: Path, may_omit: bool
) -> None:
    statements = assignments(watched.rows_with_number_strings)
    assert len(statements) >= 14
    types = typescript(watched.catalog, COMMAND, may_omit=may_omit)

    assert await errors_of(tsc, tmp_path, types, statements) == {}


# A change of a row of `of_types` after which its type is no longer true.
WRONG: dict[str, Any] = {
    "id": None,
    "a_mood": "happy",
    "no_mood": "sad",
    "a_cents": True,
    "a_place": {"name": "Rome"},
    "places": [1],
    "points": None,
    "mood_list": ["happy"],
    "domain_of_list": [[["happy"]]],
    "lists_of_domain": ["1"],
    "moods_of_domain": [1],
    "vector": 1,
    "oids": [1],
    "range_of_moods": 1,
    "days": [1],
    "generated": "7",
    "a_real": "0.1",
    "a_double": [],
    "a_numeric": {},
    "unlisted": 1,
}


async def test_tsc_refuses_a_row_with_a_value_that_a_column_cannot_have(
    watched: Watched, tsc: Path, tmp_path: Path
) -> None:
    (row,) = (r for r in watched.rows_with_number_strings["of-types"] if r["id"] == 3)
    rows = [{**row, column: value} for column, value in WRONG.items()]
    rows.append({column: value for column, value in row.items() if column != "vector"})

    types = typescript(watched.catalog, COMMAND)
    errors = await errors_of(tsc, tmp_path, types, assignments({"of-types": [row, *rows]}))

    assert list(errors) == list(range(1, len(rows) + 1))


async def test_what_may_be_left_out_is_optional_if_that_is_asked_for(
    watched: Watched, tsc: Path, tmp_path: Path
) -> None:
    (row,) = (r for r in watched.rows_with_number_strings["of-types"] if r["id"] == 3)
    bounded = ["id", "a_mood", "no_mood", "a_cents", "generated", "range_of_moods"]
    bounded += ["a_real", "a_double"]
    rows = [{name: row[name] for name in row if name != left_out} for left_out in row]

    types = typescript(watched.catalog, COMMAND, may_omit=True)
    errors = await errors_of(tsc, tmp_path, types, assignments({"of-types": rows}))

    assert [[*row][number] for number in errors] == sorted(bounded, key=[*row].index)


async def test_a_column_that_is_not_listed_is_in_no_type(watched: Watched) -> None:
    text = typescript(watched.catalog, COMMAND)

    interface = re.search(r"export interface PublicOrderItems \{\n(.*?)\}", text, re.S)
    assert interface is not None
    assert interface[1] == "  id: number;\n  status: OrderStatus | null;\n"


async def test_names_from_the_database_end_no_comment_and_no_literal(watched: Watched) -> None:
    text = typescript(watched.catalog, COMMAND)

    assert all(line.isprintable() for line in text.splitlines())
    # Without comments and strings no part of such a name is left.
    code = re.sub(r'"(\\.|[^"\\])*"', '""', re.sub(r"/\*.*?\*/", "", text))
    assert "evil" in text and not re.search(r"evil(?!:)", code.replace("constEvil", ""))


@pytest.mark.parametrize("name", ["a*/b", "a*\\b", "a*\nb", "a**//b", 'a*"/b'])
def test_no_name_ends_a_comment(name: str) -> None:
    assert "*/" not in commented(name)
