"""The pydantic models are true: they take every row that Brain sends, and lose nothing of it."""

from __future__ import annotations

import datetime
import importlib.util
import math
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from brain.row_types.names import commented
from brain.row_types.python import python
from tests.end_to_end.brain import ended
from tests.row_types.conftest import Watched
from tests.row_types.test_typescript import WRONG

pytestmark = pytest.mark.postgres_versions

COMMAND = "brain types --python"
MODULE = "generated_rows"


def imported(text: str, folder: Path) -> ModuleType:
    path = folder / f"{MODULE}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def models(watched: Watched, tmp_path: Path) -> Iterator[ModuleType]:
    yield imported(python(watched.catalog, COMMAND), tmp_path)
    del sys.modules[MODULE]


def model_of(models: ModuleType, channel: str) -> type[BaseModel]:
    found = [
        one
        for one in vars(models).values()
        if isinstance(one, type)
        and issubclass(one, BaseModel)
        and (one.__doc__ or "").endswith(f"on the channel {commented(channel)}.")
    ]
    assert len(found) == 1, found
    return found[0]


def test_models_take_every_row_and_give_it_back(watched: Watched, models: ModuleType) -> None:
    rows = [(channel, row) for channel, rows in watched.rows.items() for row in rows]
    assert len(rows) >= 14
    for channel, row in rows:
        model = model_of(models, channel)
        taken = model.model_validate(row)
        assert set(taken.model_dump(by_alias=True)) == set(row)
        again = model.model_validate(taken.model_dump(by_alias=True))
        assert repr(again) == repr(taken)


def test_values_are_of_the_types_of_python_and_keep_every_digit(
    watched: Watched, models: ModuleType
) -> None:
    (row,) = watched.rows["samples"]
    found = model_of(models, "samples").model_validate(row).model_dump()
    names = iter(name for name in found if name != "id")
    values = [found[name] for name in names]

    assert values[:8] == [
        *(-32768, 2147483647, 9223372036854775807),
        *(Decimal("12345678901234567890.123456789"), Decimal("9.9"), Decimal(10) ** 400),
        *(values[6], Decimal("-Infinity")),
    ]
    assert values[6].is_nan() and isinstance(values[4], Decimal)
    assert 0.30000000000000004 in values and math.inf in values
    for expected in (
        datetime.date(2026, 2, 6),
        "infinity",
        "0044-03-15 BC",
        datetime.time(1, 30, 0, 123456),
        datetime.datetime(2026, 2, 6, 1, 30, 0, 500000),
        datetime.datetime(2026, 2, 5, 19, 45, tzinfo=datetime.UTC),
        "-infinity",
        UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        [[1, 2], [3, None]],
        ["a", None, "c,d"],
        [datetime.datetime(2026, 2, 5, 19, 45, tzinfo=datetime.UTC)],
        {"name": "Rome", "at": "(1,2)", "since": datetime.date(2026, 2, 6)},
    ):
        assert any(type(value) is type(expected) and value == expected for value in values)
    (time,) = (v for v in values if isinstance(v, datetime.time) and v.tzinfo is not None)
    assert time.isoformat() == "01:30:00+05:45"


@pytest.mark.parametrize("column", [name for name in WRONG if name != "unlisted"])
def test_a_model_refuses_a_value_that_a_column_cannot_have(
    watched: Watched, models: ModuleType, column: str
) -> None:
    # pydantic takes the text of a number for one.
    wrong = {"generated": "seven", "a_real": "a number", "lists_of_domain": ["one"]}
    (row,) = (r for r in watched.rows["of-types"] if r["id"] == 3)
    changed = {**row, column: wrong.get(column, WRONG[column])}

    with pytest.raises(ValidationError, match=column):
        model_of(models, "of-types").model_validate(changed)


def test_what_may_be_left_out_is_none_if_that_is_asked_for(
    watched: Watched, tmp_path: Path
) -> None:
    (row,) = (r for r in watched.rows["of-types"] if r["id"] == 3)
    bounded = {"id", "a_mood", "no_mood", "a_cents", "generated", "range_of_moods"}
    bounded |= {"a_real", "a_double"}
    models = imported(python(watched.catalog, COMMAND, may_omit=True), tmp_path)
    model = model_of(models, "of-types")

    assert {name for name, field in model.model_fields.items() if field.is_required()} == bounded
    found = model.model_validate({name: row[name] for name in bounded})
    assert found.model_dump()["a_place"] is None


def test_a_name_that_no_field_can_have_is_an_alias(watched: Watched, models: ModuleType) -> None:
    (row,) = watched.rows["columns"]
    model: Any = model_of(models, "columns")
    found = model.model_validate(row)

    assert (found.class_, found.class_2, found.a_b, found.a_b_) == ("class_", "class", "a_b", "a b")
    assert model(**found.model_dump()) == found


USE = """\
from typing import Any, Literal, assert_type

import generated_rows as rows

def right(row: rows.OfTypes, order: rows.PublicOrderItems) -> None:
    assert_type(row.id, int)
    assert_type(row.a_place.at.class_ if row.a_place and row.a_place.at else None, int | None)
    assert_type(order.status, Literal["open", "paid"] | None)
    for element in row.domain_of_list or []:
        if not isinstance(element, list):
            assert_type(element, Literal["sad", 'so "so"', "new\\nline"] | None)

def wrong(row: rows.OfTypes, order: rows.PublicOrderItems) -> None:
    row.a_place.name
    order.unlisted
    order.status == "late"
    number: int = row.a_numeric
    days: list[str] = row.days
    for value in row.vector or []: value + 1
"""


@pytest.mark.parametrize("may_omit", [False, True])
async def test_mypy_knows_the_types_of_fields(
    watched: Watched, tmp_path: Path, may_omit: bool
) -> None:
    text = python(watched.catalog, COMMAND, may_omit=may_omit)
    (tmp_path / f"{MODULE}.py").write_text(text, encoding="utf-8")
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")
    options = ("--strict", "--strict-equality", "--no-error-summary", "--cache-dir", str(tmp_path))

    done = await ended((sys.executable, "-m", "mypy", *options, "use.py"), cwd=tmp_path)

    found = [int(line) for line in re.findall(r"^use\.py:(\d+): error", done.stdout, re.M)]
    wrong = range(USE[: USE.index("def wrong")].count("\n") + 2, USE.count("\n") + 1)
    assert MODULE not in done.stdout
    assert sorted({*found}) == [*wrong], done.stdout + done.stderr


async def test_the_text_is_as_ruff_has_it(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / f"{MODULE}.py").write_text(python(watched.catalog, COMMAND), encoding="utf-8")
    command = (sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache")

    done = await ended((*command, "--select", "E4,E7,E9,F,I,UP", "."), cwd=tmp_path)

    assert (done.status, done.stderr) == (0, ""), done.stdout
