"""
What an event costs to find the filters that it matches, for kinds of filters and their number.

    python -m bench.filter_index

Equality is looked up, whatever the number of filters. The rest of a filter is evaluated once per
event for all filters that have the same rest, of those whose equality matches. Only the index is
measured, in one process and in turns: no rendering, and nothing is sent.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from brain.message.comparison_keys import Kind
from brain.message.condition_binding import Meaning, bound, comparisons, operands_of
from brain.message.condition_parsing import parse_condition
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.filter_index import FilterIndex
from brain.message.matching import Topic

FILTERS = 1000
EVENTS = 2000
ROUNDS = 5
KINDS: dict[str, Kind] = {"status": "text", "customer": "number", "total": "number"}

Filters = Callable[[int], dict[str, Any]]
CASES: dict[str, Filters] = {
    "status = open and customer = n": lambda n: {"status": "open", "customer": n},
    "customer = n and total >= 10": lambda n: {"customer": n, "total": {"gte": 10}},
    "customer = n and total >= n": lambda n: {"customer": n, "total": {"gte": n}},
    "customer in 10 values": lambda n: {"customer": {"in": list(range(n, n + 10))}},
    "one filter of all: total >= 10": lambda n: {"total": {"gte": 10}},
    "total >= n": lambda n: {"total": {"gte": n}},
    "customer = n or total >= n": lambda n: {"or": [{"customer": n}, {"total": {"gte": n}}]},
}


def topic_of(where: dict[str, Any]) -> Topic:
    condition = parse_condition(where)
    meanings = {}
    for one in comparisons(condition):
        meanings[one] = Meaning(KINDS[one.column.name], operands_of(one))
    return Topic("orders", condition=bound(condition, meanings))


def index_of(filters: Filters) -> tuple[FilterIndex[int], int]:
    """Return an index of all filters, and the bytes that each takes."""
    tracemalloc.start()
    index: FilterIndex[int] = FilterIndex()
    for number in range(FILTERS):
        index.add(topic_of(filters(number)), number)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return index, taken // FILTERS


def events() -> list[Event]:
    made = []
    for number in range(EVENTS):
        customer = number % FILTERS
        data = f'{{"id" : {number}, "status" : "open", "customer" : {customer}, "total" : 500.50}}'
        cursor, now = Cursor(1, 1, number), datetime.now(UTC)
        made.append(
            Event(*cursor, now, "orders", Operation.UPDATE, f"[{number}]", data, data, 3000)
        )
    return made


def microseconds(index: FilterIndex[int], work: list[Event]) -> tuple[float, float]:
    """Return the processor time per event, and how many items an event has on average."""
    found = 0
    begun = time.process_time()
    for event in work:
        for _, items in index.find(event):
            found += len(items)
    spent = time.process_time() - begun
    return spent / len(work) * 1e6, found / len(work)


def main() -> None:
    work = events()
    # An event is split into its columns once, whoever looks into it.
    for event in work:
        assert event.row is not None and event.former is not None
        event.row.text("id"), event.former.text("id")
    print(f"{FILTERS:,} filters {'':20} {'µs per event':>12} {'items':>8} {'bytes each':>10}")
    for name, filters in CASES.items():
        index, size = index_of(filters)
        some = work if index.statistics().rests < 10 else work[: EVENTS // 10]
        spent = [microseconds(index, some) for _ in range(ROUNDS)]
        median = statistics.median(time for time, _ in spent)
        print(f"{name:34} {median:12.1f} {spent[0][1]:8.1f} {size:10}")


if __name__ == "__main__":
    main()
