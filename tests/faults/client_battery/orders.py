"""The table of the battery, its open orders, and the history by which clients are judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import asyncpg

IS_OPEN = "open"
STATUSES = (IS_OPEN, "paid", "sent")
IDS = (*range(1, 21), *range(2**53 - 3, 2**53 + 9), *range(2**62, 2**62 + 8))
"""Those of the rows that are inserted and deleted. Half of them have more digits than a double."""
BANKS = (-1, -2, -3)
"""Rows that are always open: each transaction books there what it takes from the other ones."""
OPEN_SUM = Decimal("3000000.03")
"""The total of all open orders, in every state that was ever committed."""

# Totals that differ in their zeros alone are two states, as for Brain.
# A row of the history is a state of an order: its columns are null if the order is gone.
CREATE = f"""
    CREATE TABLE orders (id bigint PRIMARY KEY, status text NOT NULL, total numeric NOT NULL);
    INSERT INTO orders SELECT id, '{IS_OPEN}', {OPEN_SUM / len(BANKS)}
      FROM unnest(ARRAY[{", ".join(map(str, BANKS))}]) id;
    CREATE TABLE history (
        serial bigserial PRIMARY KEY, txid text DEFAULT pg_current_xact_id()::text,
        id bigint NOT NULL, status text, total numeric
    );
    CREATE FUNCTION note_order() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN
            INSERT INTO history (id) SELECT id FROM orders;
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO history (id) VALUES (old.id);
        ELSE
            IF TG_OP = 'UPDATE' AND old.id <> new.id THEN
                INSERT INTO history (id) VALUES (old.id);
            END IF;
            INSERT INTO history (id, status, total) VALUES (new.id, new.status, new.total);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER note AFTER INSERT OR DELETE ON orders
        FOR EACH ROW EXECUTE FUNCTION note_order();
    CREATE TRIGGER note_update AFTER UPDATE ON orders
        FOR EACH ROW WHEN (old.* *<> new.*) EXECUTE FUNCTION note_order();
    CREATE TRIGGER note_truncate BEFORE TRUNCATE ON orders
        FOR EACH STATEMENT EXECUTE FUNCTION note_order();
    INSERT INTO history (id, status, total) SELECT * FROM orders;
    SELECT brain.watch('orders', 'orders', '{{id,status,total}}');
"""
HISTORY = "SELECT serial, txid, id, status, total FROM history ORDER BY serial"
OPEN_ROWS = f"SELECT id, status, total FROM orders WHERE status = '{IS_OPEN}'"
ALL_ROWS = "SELECT id, status, total FROM orders"


class Order(NamedTuple):
    """What a row says, but for its key."""

    status: str
    total: Decimal


Table = dict[int, Order]
"""Orders by id."""


class State(NamedTuple):
    """A state of a row of the history."""

    serial: int
    txid: str
    order: Order | None
    """None if the row is gone."""


History = Mapping[int, Sequence[State]]
"""The states of each order, in their order."""


def is_open(order: Order | None) -> bool:
    return order is not None and order.status == IS_OPEN


async def create_orders(connection: asyncpg.Connection) -> None:
    await connection.execute(CREATE)


async def read_orders(connection: asyncpg.Connection, *, only_open: bool) -> Table:
    records = await connection.fetch(OPEN_ROWS if only_open else ALL_ROWS)
    return {id: Order(status, total) for id, status, total in records}


async def read_history(connection: asyncpg.Connection) -> History:
    states = defaultdict[int, list[State]](list)
    for serial, txid, id, status, total in await connection.fetch(HISTORY):
        order = None if status is None else Order(status, total)
        states[id].append(State(serial, txid, order))
    return states


def only_open(history: History) -> History:
    """Return the history as a client sees it that asks for open orders: others are gone."""
    seen: dict[int, list[State]] = {}
    for id, states in history.items():
        shown: list[State] = []
        for state in states:
            order = state.order if is_open(state.order) else None
            if order is not None or (shown and shown[-1].order is not None):
                shown.append(State(state.serial, state.txid, order))
        seen[id] = shown
    return seen
