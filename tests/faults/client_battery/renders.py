"""The judge of what a page has shown: at every moment the rows of a committed state."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tests.faults.client_battery.orders import OPEN_SUM, History, Order, Table

LOADING = "loading"
UNMOUNTED = "unmounted"
Render = Sequence[tuple[int, Order]] | str
"""The rows of the table in their order, or one of the texts above."""


def render_of(shown: Mapping[str, Any]) -> Render:
    if "rows" not in shown:
        return UNMOUNTED
    if shown["rows"] is None:
        return LOADING
    return [(int(id), Order(status, Decimal(total))) for id, status, total in shown["rows"]]


def renders_of(text: str) -> list[Render]:
    return [render_of(shown) for shown in json.loads(text)]


def faults(renders: Sequence[Render], open_history: History) -> list[str]:
    """Return what is wrong with what a page has shown, one render after the other."""
    found = []
    before: Render = UNMOUNTED
    for number, render in enumerate(renders):
        what = fault_of(render, before)
        if what is not None:
            found.append(f"render {number} of {len(renders)}: {what}")
        before = render
    tables = [dict(render) for render in renders if not isinstance(render, str)]
    for id in sorted({id for table in tables for id in table}):
        states = [state.order for state in open_history.get(id, ())]
        what = disorder(states, [table.get(id) for table in tables])
        if what is not None:
            found.append(f"order {id}: {what}")
    return found


def fault_of(render: Render, before: Render) -> str | None:
    """Return what is wrong with a render in itself, and after the one before."""
    if isinstance(render, str):
        was_there = not isinstance(before, str)
        return "it is loading once more" if render == LOADING and was_there else None
    twice = [id for id, count in Counter(id for id, _ in render).items() if count > 1]
    if twice:
        return f"rows that are there twice: {twice}"
    closed = [id for id, order in render if order.status != "open"]
    if closed:
        return f"orders that are not open: {closed}"
    total = sum((order.total for _, order in render), Decimal(0))
    return (
        None
        if total == OPEN_SUM
        else f"a part of a transaction: the sum is off by {total - OPEN_SUM}"
    )


def disorder(states: Sequence[Order | None], shown: Iterable[Order | None]) -> str | None:
    """Return what is wrong unless what was shown of an order is what it was, in the same order."""
    # Before it was inserted it was gone.
    known = [None, *states]
    place, last = 0, object()
    for number, order in enumerate(shown):
        if order == last:
            continue
        last = order
        try:
            place = known.index(order, place)
        except ValueError:
            earlier = "not any more" if order in known else "never"
            return f"table {number} has it as {order}, which it was {earlier}"
    return None


def table_of(render: Render) -> Table | None:
    """Return the rows by id, or None if there is no table, or a row is there twice."""
    if isinstance(render, str) or len(dict(render)) != len(render):
        return None
    return dict(render)
