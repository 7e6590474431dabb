from __future__ import annotations

import json
from typing import Any

import pytest

from brain.message.channel_schema import ChannelSchema, ChannelSchemas
from brain.message.event import Event
from tests.message.rows import as_json, deleted, inserted, published, reset, truncated, updated


class OrderSchema(ChannelSchema):
    """Shows the number of an order, unless it is secret; a new one is superseded by the next."""

    def __init__(self) -> None:
        super().__init__("orders")

    def render(self, event: Event) -> str | None:
        return f"an order: {event.channel}"

    def show_row(self, row: str) -> str | None:
        columns = json.loads(row)
        return None if columns.get("secret") else as_json({"number": columns["id"]})

    def superseded_key(self, event: Event) -> str | None:
        return "any order"


ORDERS = ChannelSchemas([OrderSchema()])


@pytest.mark.parametrize(
    ("event", "is_superseded"),
    [
        (updated("orders", {"id": "a"}), True),
        (inserted("orders", {"id": "a"}), False),
        (deleted("orders", {"id": "a"}), False),
        (truncated("orders"), False),
        (published("orders", "note", {}), False),
        (reset("orders"), False),
    ],
)
def test_by_default_an_update_is_superseded_by_the_next_of_its_row(
    event: Event, is_superseded: bool
) -> None:
    assert (ChannelSchema().superseded_key(event) is not None) == is_superseded


def test_other_rows_and_rows_of_other_channels_have_other_keys() -> None:
    keys = [
        ChannelSchema().superseded_key(updated(channel, {"id": id, "n": n}, n=0))
        for channel, id, n in (
            ("orders", "a", 1),
            ("others", "a", 1),
            ("orders", "b", 1),
            ("orders", "a", 2),
        )
    ]

    assert len(set(keys)) == 3
    assert keys[3] == keys[0]


def test_by_default_a_row_is_shown_as_it_is_in_the_table() -> None:
    row: dict[str, Any] = {"id": 1, "paid": True, "at": "infinity"}
    text = as_json(row)

    assert ChannelSchema().show_row(text) == text
    assert f'"data":{text}' in (ChannelSchema().render(inserted("orders", row)) or "")


def test_a_channel_without_a_schema_has_the_default() -> None:
    for schemas in (ChannelSchemas(), ORDERS):
        assert type(schemas["others"]) is ChannelSchema
        rows = [as_json({"id": number}) for number in (1, 2)]
        assert schemas.show_rows("others", rows) == rows
        assert schemas.superseded_key(inserted("others", {"id": "a"})) is None
        assert schemas.superseded_key(updated("others", {"id": "a"})) is not None
    assert "others" not in ORDERS


def test_a_registered_schema_takes_the_place_of_the_default_on_its_channel() -> None:
    assert type(ORDERS["orders"]) is OrderSchema
    assert ORDERS["orders"].render(inserted("orders", {"id": 1})) == "an order: orders"
    assert ORDERS.superseded_key(inserted("orders", {"id": "a"})) == "any order"


def test_rows_that_cannot_be_shown_are_left_out() -> None:
    rows = [as_json(row) for row in ({"id": 1}, {"id": 2, "secret": True}, {"id": 3})]

    assert ORDERS.show_rows("orders", rows) == [as_json({"number": number}) for number in (1, 3)]
