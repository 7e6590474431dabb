from __future__ import annotations

from typing import Any

import pytest

from brain.message.comparison_keys import Kind
from brain.message.condition import Compare, IsNull, OneOf
from brain.message.condition_binding import Comparison, Meaning, bound, comparisons
from brain.message.condition_parsing import parse_condition
from brain.message.event import Event, Operation
from brain.message.filter_index import FilterIndex
from brain.message.lookups import MOST_ALTERNATIVES
from brain.message.matching import Match, RowAccess, Topic, parse_filter
from tests.message.test_matching import event, written

KINDS: dict[str, Kind] = {"status": "text", "note": "other", "code": "padded"}


def meaning(comparison: Comparison) -> Meaning:
    """Return that of columns of numbers, but for those in `KINDS`."""
    kind = KINDS.get(comparison.column.name, "number")
    match comparison:
        case IsNull():
            return Meaning(kind, ())
        case OneOf(_, operands):
            return Meaning(kind, [operand.json for operand in operands])
        case Compare():
            return Meaning(kind, [comparison.operand.json])


def topic(where: Any, **options: Any) -> Topic:
    condition = parse_condition(where)
    meanings = {one: meaning(one) for one in comparisons(condition)}
    return Topic("tasks", condition=bound(condition, meanings), **options)


def matched(where: Any, event: Event, **options: Any) -> Match | None:
    index: FilterIndex[str] = FilterIndex()
    index.add(topic(where, **options), "client")
    return index.match(event)


OPEN_AND_LARGE = {"status": "open", "total": {"gte": 10}}
SMALL, LARGE = {"status": "open", "total": 9.99}, {"status": "open", "total": 10}
DONE = {"status": "done", "total": 10}


@pytest.mark.parametrize(
    ("operation", "data", "old", "expected"),
    [
        (Operation.INSERT, LARGE, None, Match.MATCHES),
        (Operation.INSERT, SMALL, None, None),
        (Operation.INSERT, DONE, None, None),
        (Operation.UPDATE, LARGE, LARGE, Match.MATCHES),
        (Operation.UPDATE, LARGE, SMALL, Match.MATCHES),
        (Operation.UPDATE, LARGE, DONE, Match.MATCHES),
        (Operation.UPDATE, SMALL, LARGE, Match.LEAVES),
        (Operation.UPDATE, DONE, LARGE, Match.LEAVES),
        (Operation.UPDATE, SMALL, SMALL, None),
        (Operation.UPDATE, SMALL, DONE, None),
        (Operation.UPDATE, DONE, SMALL, None),
        (Operation.DELETE, None, LARGE, Match.MATCHES),
        (Operation.DELETE, None, SMALL, None),
        (Operation.TRUNCATE, None, None, Match.MATCHES),
        (Operation.RESET, "reason", None, Match.MATCHES),
        (Operation.PUBLISH, LARGE, None, Match.MATCHES),
        (Operation.PUBLISH, SMALL, None, None),
        (Operation.PUBLISH, {"status": "open"}, None, None),
        (Operation.PUBLISH, ["open"], None, None),
        (Operation.PUBLISH, None, None, None),
    ],
)
def test_rows_match_a_filter_and_leave_it(
    operation: Operation, data: Any, old: Any, expected: Match | None
) -> None:
    found = event(operation, data, old, ["a"])

    assert matched(OPEN_AND_LARGE, found) is expected
    # The same where nothing is looked up.
    assert matched({"or": [OPEN_AND_LARGE, {"total": {"gt": 99}}]}, found) is expected


ABSENT = written('{"id" : 1}')
OMITTED = written('{"id" : 1}', omitted=("total", "status", "note"))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"status": "open"}, None),
        ({"status": {"in": ["open", "done"]}}, None),
        ({"status": {"is": None}}, None),
        ({"status": {"neq": "open"}}, Match.MATCHES),
        ({"note": {"neq": "open"}}, Match.UNDECIDED),
        ({"status": {"gt": "open"}}, Match.UNDECIDED),
        ({"total": {"lt": 5}}, Match.UNDECIDED),
        ({"id": 1, "total": {"lt": 5}}, Match.UNDECIDED),
        ({"id": 2, "total": {"lt": 5}}, None),
        ({"id": {"gt": 1}, "total": {"lt": 5}}, None),
        ({"or": [{"id": 1}, {"total": {"lt": 5}}]}, Match.MATCHES),
        ({"or": [{"id": 2}, {"total": {"lt": 5}}]}, Match.UNDECIDED),
    ],
)
def test_a_value_that_was_left_out_equals_nothing_and_is_in_no_order(
    where: Any, expected: Match | None
) -> None:
    assert matched(where, OMITTED) is expected


def test_of_a_value_that_the_event_does_not_have_nothing_is_known() -> None:
    assert matched({"status": {"neq": "open"}}, ABSENT) is Match.UNDECIDED
    assert matched({"id": {"gt": 0}}, written('{"id" : "a text"}')) is Match.UNDECIDED


def test_a_row_that_may_have_matched_leaves_and_one_that_is_deleted_is_deleted() -> None:
    was_large = written('{"id" : 1, "total" : 5}', Operation.UPDATE, old='{"id" : 1}')
    is_large = written('{"id" : 1}', Operation.UPDATE, old='{"id" : 1}', omitted=("total",))
    is_gone = written(None, Operation.DELETE, old='{"id" : 1}', omitted=("total",))

    assert matched({"total": {"gt": 9}}, was_large) is Match.LEAVES
    assert matched({"id": 1, "total": {"gt": 9}}, was_large) is Match.LEAVES
    assert matched({"id": 2, "total": {"gt": 9}}, was_large) is None
    assert matched({"total": {"gt": 9}}, is_large) is Match.UNDECIDED
    assert matched({"total": {"gt": 9}}, is_gone) is Match.MATCHES


def test_a_comparison_with_null_matches_nothing() -> None:
    null = written('{"total" : null, "status" : null}')
    for comparison in ("neq", "gt", "gte", "lt", "lte", "eq"):
        assert matched({"total": {comparison: 1}}, null) is None
    assert matched({"total": {"is": None}}, null) is Match.MATCHES
    assert matched({"total": {"is": None}}, written('{"total" : 0}')) is None
    assert matched({"or": [{"total": {"gt": 1}}, {"status": {"is": None}}]}, null) is Match.MATCHES


def test_a_filter_may_be_of_one_row() -> None:
    where = {"total": {"gt": 1}}
    assert matched(where, event(data={"total": 2}, key=["a"]), key="a") is Match.MATCHES
    assert matched(where, event(data={"total": 2}, key=["b"]), key="a") is None


RULES = RowAccess('{"":[1],"owner":[7,8]}')


@pytest.mark.parametrize(
    ("total", "owner", "old_total", "old_owner", "expected"),
    [
        (2, 7, 2, 7, Match.MATCHES),
        (2, 8, 2, 7, Match.MATCHES),
        (2, 7, 2, 9, Match.ENTERS),
        (2, 7, 0, 9, Match.ENTERS),
        (2, 7, 0, 7, Match.MATCHES),
        (2, 9, 2, 7, Match.LEAVES),
        (2, 9, 0, 7, None),
        (0, 7, 2, 9, None),
        (0, 7, 2, 8, Match.LEAVES),
        (0, 9, 2, 8, Match.LEAVES),
        (2, 9, 2, 9, None),
    ],
)
def test_rows_enter_and_leave_by_row_rules_and_leave_by_the_filter(
    total: int, owner: int, old_total: int, old_owner: int, expected: Match | None
) -> None:
    changed = event(data={"total": total}, old={"total": old_total}, key=["a"])
    changed.rule_values = f'{{"" : 1, "owner" : {owner}}}'
    changed.old_rule_values = f'{{"" : 1, "owner" : {old_owner}}}'

    assert matched({"total": {"gt": 1}}, changed, rows=RULES) is expected
    assert matched({"total": {"in": [2, 3]}}, changed, rows=RULES) is expected


def test_a_row_that_moves_between_values_of_a_list_stays() -> None:
    moved = event(data={"total": 1}, old={"total": 2}, key=["a"])

    assert matched({"total": {"in": [1, 2]}}, moved) is Match.MATCHES
    assert matched({"total": {"in": [2, 3]}}, moved) is Match.LEAVES
    many = list(range(MOST_ALTERNATIVES + 1))
    assert matched({"total": {"in": many}}, moved) is Match.MATCHES
    assert matched({"total": {"in": many[2:]}}, moved) is Match.LEAVES


def test_padded_texts_are_not_looked_up_by_their_spaces() -> None:
    assert matched({"code": "ab"}, written('{"code" : "ab  "}')) is Match.MATCHES


def test_equality_is_looked_up_and_the_rest_is_evaluated_once_for_all() -> None:
    index: FilterIndex[int] = FilterIndex()
    for customer in range(1000):
        index.add(topic({"status": "open", "customer": customer}), customer)
        index.add(topic({"customer": customer, "total": {"gt": 10}}), customer)
        index.add(topic({"total": {"gt": 10}}), customer)
    assert index.statistics() == (2001, 1, 1, 0)

    found = list(index.find(written('{"status" : "open", "customer" : 7, "total" : 11}')))

    assert sorted(len(items) for _, items in found) == [1, 1, 1000]
    assert index.statistics().evaluations == 1


def test_what_is_removed_is_found_no_more_and_takes_no_memory() -> None:
    index: FilterIndex[str] = FilterIndex()
    topics = [topic(OPEN_AND_LARGE), topic({"total": {"gt": 1}}), topic({"status": "open"})]
    for one in topics:
        index.add(one, "a")
        index.add(one, "b")
    large = event(Operation.INSERT, LARGE)
    for one in topics:
        index.remove(one, "a")
    assert [items for _, items in index.find(large)] == [{"b"}] * 3

    assert index.statistics()[:3] == (3, 2, 2)
    index.remove(topics[1], "b")
    assert index.statistics()[:3] == (2, 1, 1)
    for one in topics:
        index.remove(one, "b")
        index.remove(one, "nobody")

    assert list(index.find(large)) == []
    assert list(index.find(event(Operation.TRUNCATE))) == []
    assert index.statistics()[:3] == (0, 0, 0)
    assert not index


def test_equal_filters_are_one_topic() -> None:
    index: FilterIndex[str] = FilterIndex()
    index.add(topic({"total": {"gt": 1.0, "lt": 5}}), "a")
    index.add(topic({"and": [{"total": {"lt": 5}}, {"total": {"gt": 1}}]}), "b")

    assert [items for _, items in index.find(written('{"total" : 2}'))] == [{"a", "b"}]


def test_a_filter_without_types_is_no_topic() -> None:
    index: FilterIndex[str] = FilterIndex()
    for where in ({"total": 1}, {"or": [{"total": {"gt": 1}}, {"status": "open"}]}):
        with pytest.raises(TypeError, match="looked up first"):
            index.add(Topic("tasks", condition=parse_condition(where)), "client")
    assert not index


def test_a_filter_without_conditions_matches_all_rows() -> None:
    assert matched({}, written("{}")) is Match.MATCHES
    assert matched({"or": []}, written("{}")) is None
    assert matched({"or": []}, event(Operation.TRUNCATE)) is Match.MATCHES


def test_a_topic_counts_under_what_it_is_found_and_what_is_evaluated() -> None:
    for where, combinations, evaluated in (
        ({"status": "open"}, 1, 0),
        ({"status": {"in": ["a", "b"]}, "total": {"gt": 1}}, 2, 1),
        ({"total": {"in": list(range(MOST_ALTERNATIVES + 1))}}, 1, MOST_ALTERNATIVES + 1),
    ):
        assert topic(where).combinations == combinations
        assert topic(where, rows=RULES).combinations == 2 * combinations
        assert topic(where).evaluated == evaluated
    assert Topic("tasks", where=parse_filter({"status": "open"})).combinations == 1
