"""Gives filters the types of the columns of a watched table, and says them in SQL."""

from __future__ import annotations

import asyncpg

from brain.database.connection import Queryable
from brain.errors import FilterRefused
from brain.message.condition import Condition
from brain.message.condition_binding import (
    Meaning,
    bound,
    compared_with,
    comparison_name,
    comparisons,
    untyped,
)
from brain.message.condition_parsing import check_bytes

COMPARISONS = """
    SELECT c.problem, c.kind, c.operands
      FROM brain.watched w,
           unnest($2::text[], $3::text[], $4::text[])
               WITH ORDINALITY f (name, comparison, value, number),
           LATERAL brain.filter_comparison(w, f.name, f.comparison, f.value::jsonb) c
     WHERE w.channel = $1
     ORDER BY f.number
"""
CONDITION = """
    SELECT brain.filter_condition(w, $2::text::jsonb) FROM brain.watched w WHERE w.channel = $1
"""


async def bind_condition(connection: Queryable, channel: str, condition: Condition) -> Condition:
    """
    Return a parsed condition with the types that the columns of a channel have now.

    Its values are those that events have; one query asks for all. If no table is watched on the
    channel, they are compared as the JSON of messages has them. Raises `FilterRefused`, and errors
    of the database.
    """
    asked = list(dict.fromkeys(comparisons(condition)))
    if not asked:
        return condition
    try:
        records = await connection.fetch(
            COMPARISONS,
            channel,
            [one.column.name for one in asked],
            [comparison_name(one) for one in asked],
            [compared_with(one) for one in asked],
        )
    except asyncpg.UntranslatableCharacterError as error:
        raise FilterRefused("where: it has a character that the database cannot have") from error
    if not records:
        return untyped(channel, condition)
    meanings = {}
    for one, record in zip(asked, records, strict=True):
        if record["problem"] is not None:
            raise FilterRefused(f"where: {record['problem']}")
        meanings[one] = Meaning(record["kind"], record["operands"] or ())
    found = bound(condition, meanings)
    check_bytes(found)  # PostgreSQL may write a value with more digits
    return found


async def condition_in_sql(connection: Queryable, channel: str, condition: Condition) -> str:
    """
    Return a bound condition for the rows `r` of the table, for a query that `as_reader` runs.

    It is written for the types that the columns have now. Raises `FilterRefused` if its values do
    not fit them any more, and errors of the database.
    """
    try:
        found: str | None = await connection.fetchval(CONDITION, channel, condition.json)
    except asyncpg.InvalidParameterValueError as error:
        raise FilterRefused(f"where: {error.args[0]}") from error
    if found is None:
        raise FilterRefused(f"where: no table is watched on {channel}")
    return found
