"""Rows as instances of models, and numbers of any size."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, assert_type
from uuid import UUID

import asyncpg
import pytest
from pydantic import AfterValidator, BaseModel
from typing_extensions import TypedDict

from brain.client import Brain, Change, InvalidRow, Subscription
from brain.client.exact_json import exact_number, parse, with_floats
from brain.client.rows import Rows
from tests.client.following import next_of, up_to
from tests.end_to_end.brain import RunningBrain

WIDE = """
    CREATE TABLE wide (
        id bigint PRIMARY KEY, total numeric, part double precision, at timestamptz, code uuid);
    SELECT brain.watch('wide', 'wide', '{id,total,part,at,code}');
    INSERT INTO wide VALUES (
        9007199254740993, 12345678901234567890.1200, 0.1, '2026-02-06 01:30:00+00',
        '00000000-0000-0000-0000-000000000001');
"""


class Wide(BaseModel):
    id: int
    total: Decimal
    part: float
    at: datetime
    code: UUID


class Order(BaseModel):
    id: int
    status: str
    total: Decimal


@dataclass
class Slim:
    id: int
    status: str | None


class OrderDict(TypedDict):
    id: int
    total: Decimal


async def first_row(changes: Subscription[Any]) -> Any:
    return (await next_of(changes)).row


async def test_numbers_have_every_digit(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    await orders.execute(WIDE)
    async with Brain(shared_brain.http) as brain:
        plain = await first_row(brain.subscribe("wide", snapshot=True))
        model = await first_row(brain.subscribe("wide", snapshot=True, model=Wide))
    assert plain["id"] == 9007199254740993
    assert plain["total"] == Decimal("12345678901234567890.12")
    assert (type(plain["part"]), plain["part"]) == (float, 0.1)
    assert str(model.total) == "12345678901234567890.1200"
    assert (model.id, model.part, model.code.int) == (9007199254740993, 0.1, 1)
    assert model.at.isoformat() == "2026-02-06T01:30:00+00:00"


async def test_rows_are_instances_of_models_dataclasses_and_typed_dicts(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders VALUES (1, 'new', 2.50)")
    async with Brain(shared_brain.http) as brain:
        changes = brain.subscribe("orders", snapshot=True, model=Order)
        assert_type(changes, Subscription[Order])
        change = await anext(changes)
        assert_type(change, Change[Order])
        assert change.row == Order(id=1, status="new", total=Decimal("2.50"))
        slim = await first_row(brain.subscribe("orders", snapshot=True, model=Slim, name="slim"))
        assert slim == Slim(1, "new")
        as_dict = brain.subscribe("orders", snapshot=True, model=OrderDict, name="dict")
        assert await first_row(as_dict) == {"id": 1, "total": Decimal("2.50")}
        await up_to(changes, "live")
        await orders.execute("UPDATE orders SET total = 3.5")
        updated = await next_of(changes)
        assert updated.old == {"id": 1, "status": "new", "total": 2.5}
        assert updated.old is not None and type(updated.old["total"]) is float
        untyped = brain.subscribe("orders", name="untyped")
        assert_type(untyped, Subscription[dict[str, Any]])


async def test_a_row_that_does_not_fit_is_named_and_the_loop_goes_on_after_it(
    shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders VALUES (1, 'new', NULL), (2, 'new', 1)")
    async with Brain(shared_brain.http) as brain:
        changes = brain.subscribe("orders", snapshot=True, model=Order)
        with pytest.raises(InvalidRow, match=r"orders with the key \[1\].*total") as invalid:
            await next_of(changes)
        assert (await next_of(changes)).key == [2]
    assert (invalid.value.channel, invalid.value.key) == ("orders", [1])


@pytest.mark.parametrize("text", ["0.1", "1.50", "1e300", "-2.5e-7", "123456789.125"])
def test_a_number_is_a_float_if_that_has_all_its_digits(text: str) -> None:
    assert type(exact_number(text)) is float
    assert exact_number(text) == float(text)


@pytest.mark.parametrize("text", ["0.12345678901234567890", "12345678901234567890.1", "1e400"])
def test_a_number_that_a_float_would_round_is_a_decimal(text: str) -> None:
    assert exact_number(text) == Decimal(text)
    assert with_floats(parse(text, decimals=True)) == Decimal(text)


def test_integers_have_any_size() -> None:
    assert parse("1" + "0" * 9999) == 10**9999
    assert parse("[9007199254740993, -1]") == [9007199254740993, -1]


def test_a_validator_that_fails_is_a_row_that_does_not_fit() -> None:
    def fail(value: int) -> int:
        raise LookupError("no such order")

    rows = Rows[Any]("orders", dict[str, Annotated[int, AfterValidator(fail)]])
    with pytest.raises(InvalidRow, match="no such order"):
        rows.change({"op": "insert", "key": [1], "row": {"id": 1}})
