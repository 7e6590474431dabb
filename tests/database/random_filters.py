"""
Random filters of random tables: what the hub finds in events is what SQL finds in the table.

    python -m tests.database.random_filters [--seeds 50] [--first 1] [--binaries FOLDER]

Each seed is a table with columns of random types, rows, filters and updates. For each row and each
filter, SQL says whether the row matches before and after; the events of the log have to say it too.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import asyncpg
import uvloop

from brain.database.budget import PINNED, undone
from brain.database.log import Log
from brain.database.migrations import migrate
from brain.database.row_conditions import bind_condition, condition_in_sql
from brain.database.schema_files import core_schema
from brain.message.condition import Condition
from brain.message.event import Event, Operation
from brain.message.filter_index import FilterIndex
from brain.message.matching import Match, Topic
from tests.database.log_reading import events_after, reading
from tests.message.conditions import condition_from_json
from tests.postgres import new_database, server_for_tests

USER_TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'Happy', 'ecstatic');
    ALTER TYPE mood ADD VALUE 'angry' BEFORE 'so so';
    CREATE DOMAIN cents AS numeric(12, 2);
    CREATE DOMAIN short AS varchar(20) COLLATE "C";
    CREATE DOMAIN feeling AS mood;
    CREATE TYPE place AS (name text, since date);
"""

TEXTS = (
    *("", " ", "a", "A", "a ", "ab", "Z", "z", "ä", "Ä", "é", "e\u0301", "ß", "ss", "\u200b", "\t"),
    *(
        "\U0001f600",
        "\U0010ffff",
        "\uffff",
        "\ue000",
        "10",
        "9",
        "'",
        '"',
        "\\",
        "\\x41",
        "%",
        "$1",
    ),
    *("a\nb", "{a,b}", "NULL", "null", "İ", "i", "I", "O'Brien", "\u2028", "\x01", "\x7f", "日本"),
)
INTEGERS = ("0", "1", "-1", "7", "100", "-100", "32767", "-32768")
NUMBERS = (
    *("0", "-0", "1", "1.0", "1.10", "-1.1", "0.1", "1e3", "1000", "99.995", "1e-3", "12.5"),
    *("123456789012345678901234567890.123456789", "123456789012345678901234567890.12345678"),
)
FLOATS = ("0", "-0", "0.1", "0.2", "0.3", "1e-30", "1e30", "16777216", "16777217", "-1.5", "1e15")
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
DAYS = (
    *("2026-01-31", "2026-02-01", "1999-12-31", "0001-01-01", "0001-01-01 BC", "0044-03-15 BC"),
    *("9999-12-31", "10000-01-01", "infinity", "-infinity"),
)
CLOCKS = ("00:00:00", "00:00:00.000001", "01:30:00", "01:30:00.1", "23:59:59.999999", "24:00:00")
ZONES = ("+00", "+05:45", "-03:30", "+14", "-12", "Z", "+01:30:10")
UUIDS = tuple(
    f"{start}eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" for start in ("a0", "A0", "a1", "00", "ff", "9f")
)


class Type(NamedTuple):
    name: str
    values: Sequence[Any]
    """For rows and for filters, as a filter has them."""
    only_rows: Sequence[str] = ()
    comparisons: str = "eq neq gt gte lt lte in is"
    only_filters: Sequence[Any] = ()


def moments(zones: Sequence[str]) -> list[str]:
    found = []
    for day in DAYS:
        text, _, era = day.partition(" ")
        if "infinity" in day:
            found.append(day)
            continue
        for clock in CLOCKS[:5]:
            zone = zones[len(found) % len(zones)]
            found.append(f"{text}T{clock}{zone}{' ' + era if era else ''}")
    return found


def decimals(*texts: str) -> list[Any]:
    """Return the numbers as JSON numbers, and those that are none as strings."""
    return [text if text in NOT_FINITE else Digits(text) for text in texts]


class Digits(str):
    """A number as it is written in JSON."""


EQUALITY = "eq neq in is"
TYPES = (
    Type("int2", decimals(*INTEGERS)),
    Type("int4", decimals(*INTEGERS, "2147483647", "-2147483648"), only_filters=decimals("1.0")),
    Type("int8", [*decimals(*INTEGERS, "9007199254740993", "9007199254740992"), "42"]),
    Type("numeric", decimals(*NUMBERS, *NOT_FINITE), ["1e400", "-1e400", "1e-400", "9" * 1200]),
    Type("numeric(10,2)", decimals("0", "1", "1.1", "1.10", "-1.1", "99.99", "99.995")),
    Type("float4", decimals(*FLOATS, *NOT_FINITE)),
    Type("float8", decimals(*FLOATS, "1e300", "1e-300", "0.30000000000000004", *NOT_FINITE)),
    Type("cents", decimals("0", "1.1", "99.99", "-0.01")),
    Type("text", TEXTS),
    Type("varchar", TEXTS),
    Type("varchar(3)", [text for text in TEXTS if len(text) <= 3], only_filters=["abcd"]),
    Type('text COLLATE "C"', TEXTS),
    Type("short", TEXTS),
    Type("char(4)", [text for text in TEXTS if len(text) <= 4]),
    Type("bpchar", TEXTS),
    Type("boolean", [True, False]),
    Type("uuid", UUIDS),
    Type("mood", ["sad", "angry", "so so", "Happy", "ecstatic"]),
    Type("feeling", ["sad", "angry", "so so", "Happy", "ecstatic"]),
    Type("date", DAYS),
    Type("time", CLOCKS),
    Type("timetz", [clock + zone for clock in CLOCKS for zone in ZONES]),
    Type("timestamp", [*moments([""]), "2026-01-31", "2026-01-31 01:30"]),
    Type("timestamptz", moments(ZONES)),
    Type("interval", ["1 day", "24:00:00", "1 mon", "30 days", "-1 year"], (), EQUALITY),
    Type("inet", ["10.0.0.1", "10.0.0.1/32", "10.0.0.0/8", "::1"], (), EQUALITY),
    Type("bytea", ["\\x", "\\x00ff", "\\x00FF"], (), EQUALITY),
    Type("money", ["$1.00", "1", "-$1,234.50"], (), EQUALITY),
    Type("bit(4)", ["1010", "1111"], (), EQUALITY),
    Type("int4range", ["[1,10)", "[1,9]", "empty", "(,)"], (), EQUALITY),
    Type("name", ["a", "b "], (), EQUALITY),
    Type("jsonb", (), ["null", "1", '"a"', "{}", '{"a": null}'], "is"),
    Type("json", (), [" null ", "1", '"a"', '{"a":\nnull}'], "is"),
    Type("int4[]", (), ["{}", "{1,NULL}"], "is"),
    Type("place", (), ["(,)", "(a,2026-01-31)"], "is"),
)

# Of another order than code points; a server may have been built without.
ICU_COLLATION = "en-x-icu"
ICU_TYPES = (
    Type(f'text COLLATE "{ICU_COLLATION}"', TEXTS),
    Type(f'char(4) COLLATE "{ICU_COLLATION}"', [text for text in TEXTS if len(text) <= 4]),
)


def random_value(random: Random, type: Type) -> str | None:
    """Return the text of a value for a row; None for null."""
    if random.random() < 0.15:
        return None
    value = random.choice([*type.values, *type.only_rows])
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def as_json(value: Any) -> str:
    return value if isinstance(value, Digits) else json.dumps(value)


def random_filter(random: Random, columns: Mapping[str, Type], depth: int = 0) -> str:
    """Return a filter as JSON, in any of the ways in which it may be written."""
    members = []
    for _ in range(random.choice([0, 1, 1, 1, 2, 3] if depth else [1, 1, 2, 3])):
        if depth < 3 and random.random() < 0.35:
            name = random.choice(["and", "or"])
            parts = [
                random_filter(random, columns, depth + 1) for _ in range(random.randrange(1, 4))
            ]
            members.append(f'"{name}":[{",".join(parts)}]')
        else:
            column = random.choice(list(columns))
            members.append(f"{json.dumps(column)}:{random_comparisons(random, columns[column])}")
    # Of two members with one name, JSON has the later: then the filter has that one.
    return "{" + ",".join({text.partition(":")[0]: text for text in members}.values()) + "}"


def random_comparisons(random: Random, type: Type) -> str:
    choices = [*type.values, *type.only_filters]
    names = random.sample(type.comparisons.split(), 2 if "gt" in type.comparisons else 1)
    if random.random() < 0.6:
        names = names[:1]
    if names == ["eq"] and random.random() < 0.5:
        return as_json(random.choice(choices))
    found = []
    for name in names:
        if name == "is":
            found.append('"is":null')
        elif name == "in":
            values = random.choices(choices, k=random.randrange(5))
            found.append(f'"in":[{",".join(map(as_json, values))}]')
        else:
            found.append(f'"{name}":{as_json(random.choice(choices))}')
    return "{" + ",".join(found) + "}"


WRITTEN = """
    SELECT brain.filter_condition(w, $1::text::jsonb) FROM brain.watched w WHERE channel = 'things'
"""


class Trial:
    """A table, with filters that are bound and in SQL."""

    def __init__(
        self, connection: asyncpg.Connection, log: Log, random: Random, types: Sequence[Type]
    ) -> None:
        """`types` are those of its columns."""
        self._connection = connection
        self._log = log
        self._random = random
        self.columns = {f"{type.name} {number}": type for number, type in enumerate(types)}
        if random.random() < 0.2:  # a name that the language has
            self.columns["or"] = random.choice(types)
        self.index: FilterIndex[int] = FilterIndex()
        self.filters: dict[int, str] = {}
        self.conditions: dict[int, Condition] = {}
        self.statements: dict[int, str] = {}
        self.compared: Counter[Match | None] = Counter()

    async def create(self) -> None:
        columns = ", ".join(f"{quoted(name)} {type.name}" for name, type in self.columns.items())
        names = ["id", *self.columns]
        await self._connection.execute(f"CREATE TABLE things (id int PRIMARY KEY, {columns})")
        await self._connection.execute("SELECT brain.watch('things', 'things', $1)", names)

    async def add_filters(self, count: int) -> None:
        for number in range(count):
            text = random_filter(self._random, self.columns)
            parsed = condition_from_json(text)
            condition = await bind_condition(self._connection, "things", parsed)
            self.filters[number], self.conditions[number] = text, condition
            self.index.add(Topic("things", condition=condition), number)
            # What was written, and what Brain makes of it.
            written = await self._connection.fetchval(WRITTEN, text)
            bound = await condition_in_sql(self._connection, "things", condition)
            self.statements[number] = (
                f"SELECT r.id || CASE WHEN ({written}) IS TRUE = (({bound}) IS TRUE) THEN ''"
                f" ELSE ' differs' END FROM public.things r WHERE {written}"
            )
            again = await bind_condition(
                self._connection, "things", condition_from_json(condition.json)
            )
            assert again == condition, (text, again.json, condition.json)

    async def matching(self) -> dict[int, set[str]]:
        """Return the ids of the rows that match each filter, read as snapshots are."""
        await self._connection.execute("SELECT brain.open_reader()")
        found = {}
        async with undone(self._connection):
            await self._connection.execute(PINNED)
            for number, statement in self.statements.items():
                rows = await self._connection.fetch(
                    "SELECT * FROM pg_temp.brain_read($1) r (id)", statement
                )
                found[number] = {row["id"] for row in rows}
        return found

    async def insert(self, count: int) -> None:
        names = ", ".join(quoted(name) for name in ["id", *self.columns])
        start = await self._log.tick()
        for id in range(count):
            values = [random_value(self._random, type) for type in self.columns.values()]
            await self._write(
                f"INSERT INTO things ({names}) VALUES ({id}{''.join(map(literal, values))})"
            )
        self._compare(
            await events_after(self._log, start),
            {n: set() for n in self.filters},
            await self.matching(),
        )

    async def update(self, count: int) -> None:
        """Change some columns of each row once, and compare with what was before and is after."""
        before = await self.matching()
        start = await self._log.tick()
        for id in range(count):
            count = self._random.randint(1, len(self.columns))
            some = self._random.sample(sorted(self.columns), count)
            changes = ", ".join(
                f"{quoted(name)} = {literal(random_value(self._random, self.columns[name]))[1:]}"
                for name in some
            )
            await self._write(f"UPDATE things SET {changes} WHERE id = {id}")
        self._compare(await events_after(self._log, start), before, await self.matching())

    async def delete(self) -> None:
        before = await self.matching()
        start = await self._log.tick()
        await self._write("DELETE FROM things")
        self._compare(await events_after(self._log, start), before, before)

    async def _write(self, statement: str) -> None:
        await self._connection.execute(statement)

    def _compare(
        self, events: list[Event], before: dict[int, set[str]], after: dict[int, set[str]]
    ) -> None:
        order = list(Match)
        for event in events:
            ways: dict[int, Match] = {}
            for match, numbers in self.index.find(event):
                for number in numbers:
                    ways[number] = min(match, ways.get(number, match), key=order.index)
            for number in self.filters:
                expected = self._expected(event, before[number], after[number])
                self.compared[expected] += 1
                assert ways.get(number) is expected, (
                    f"{self.filters[number]} is {self.conditions[number].json}, in SQL "
                    f"{self.statements[number]}: expected {expected}, found {ways.get(number)} for "
                    f"{event.operation} {event.old} -> {event.data}; columns {self.columns}"
                )

    def _expected(self, event: Event, before: set[str], after: set[str]) -> Match | None:
        assert event.key_text is not None
        if event.key_text in after:
            return Match.MATCHES
        is_gone = event.operation is Operation.UPDATE and event.key_text in before
        return Match.LEAVES if is_gone else None


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | None) -> str:
    if value is None:
        return ", NULL"
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f", E'{escaped}'"


async def run_seed(
    connection: asyncpg.Connection,
    url: str,
    seed: int,
    *,
    has_all_types: bool = False,
    rows: int = 40,
    filters: int = 40,
) -> Counter[Match | None]:
    """Play one seed in a database that has the schema; return what was compared."""
    random = Random(seed)
    await connection.execute("SET jit = off")  # as in the sessions of Brain
    has_icu = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = $1)", ICU_COLLATION
    )
    types = (*TYPES, *ICU_TYPES) if has_icu else TYPES
    async with reading(url) as log:
        count = len(types) if has_all_types else random.randrange(2, 9)
        trial = Trial(connection, log, random, random.sample(types, count))
        await trial.create()
        try:
            await trial.add_filters(filters)
            await trial.insert(rows)
            await trial.update(rows)
            await trial.delete()
        finally:
            await connection.execute("SELECT brain.unwatch('things'); DROP TABLE things")
    return trial.compared


RunSeed = Callable[[asyncpg.Connection, str, int], Awaitable[Counter[Any]]]


async def run_seeds(program: str, run_seed: RunSeed) -> None:
    """Run the seeds that the command line names, on one database, and print what they count."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--binaries", help="folder of PostgreSQL's programs")
    arguments = parser.parse_args()
    if arguments.binaries:
        os.environ["BRAIN_TEST_POSTGRES"] = arguments.binaries
    counted: Counter[Any] = Counter()
    with server_for_tests() as server:
        async with new_database(server) as url:
            await migrate(url, [core_schema()])
            connection = await asyncpg.connect(url)
            await connection.execute(USER_TYPES)
            for seed in range(arguments.first, arguments.first + arguments.seeds):
                counted += await run_seed(connection, url, seed)
                print(f"seed {seed}: {dict(counted)}", flush=True)
            await connection.close()


if __name__ == "__main__":
    uvloop.run(run_seeds("tests.database.random_filters", run_seed))
