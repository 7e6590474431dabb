"""A watched table of random types, the views that clients have of it, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import asyncpg
import jwt

from tests.database.random_filters import TYPES, Type, literal, quoted, random_value
from tests.faults.filter_sql import filter_in_sql, parsed, string

SECRET = "0123456789abcdef0123456789abcdef"

# As the sessions of Brain have it.
SETTINGS = """
    SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET intervalstyle = postgres;
    SET bytea_output = hex; SET extra_float_digits = 1; SET lc_monetary = 'C'; SET jit = off
"""
KEYS: Mapping[str, Sequence[str]] = {
    "int4": [str(number) for number in range(-3, 17)],
    "text": [*"abcdefghij", "", " ", "é", "a:b", "%", '"', "\\"],
    "uuid": [f"{number:02x}eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" for number in range(16)],
    "date": [f"2026-02-{day:02}" for day in range(1, 17)],
    "int8": [str(2**53 + number) for number in range(12)],
}
# The columns of row rules, with their claims, and what both have.
TEAMS, OWNERS = ["red", "blue", "Red", "7"], [7, 8, 9]
CLAIMS = {"team": "teams", "owner": "owners"}
RULES: Sequence[Mapping[str, str]] = [
    {},
    {},
    {"team": "teams"},
    {"owner": "owners"},
    {"team": "teams", "owner": "owners"},
]

Rows = dict[str, Any]
"""By key."""


@dataclass(frozen=True)
class View:
    """What one client asks for, and may see."""

    filter: str | None
    """As JSON."""
    condition: str
    """The same in SQL."""
    claims: Mapping[str, Any]

    @property
    def token(self) -> str:
        return jwt.encode({"sub": "ann", "exp": 4102444800, **self.claims}, SECRET)

    def in_sql(self, rule: Mapping[str, str]) -> str:
        """Return the condition for the rows of the view while a rule is in force."""
        parts = [self.condition]
        for column, claim in rule.items():
            allowed = ", ".join(string(value) for value in self.claims.get(claim, []))
            parts.append(f"{quoted(column)}::text = ANY (ARRAY[{allowed}]::text[])")
        return f"(({' AND '.join(parts)}) IS TRUE)"


class State(NamedTuple):
    """The table at one moment."""

    rows: Rows
    views: Sequence[Rows]
    """What each view shows."""


@dataclass
class RandomTable:
    name: str
    keys: Mapping[str, str]
    """The columns of the primary key, with their types."""
    columns: Mapping[str, Type]
    """Those that filters compare."""
    views: list[View] = field(default_factory=list)
    rule: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, chance: Random, name: str) -> RandomTable:
        types = chance.sample(TYPES, chance.randrange(2, 7))
        columns = {f"{type.name} {number}": type for number, type in enumerate(types)}
        columns |= {"team": Type("text", TEAMS), "owner": Type("int4", OWNERS)}
        keys = chance.sample(sorted(KEYS), chance.choice([1, 1, 2]))
        return cls(name, {f"key {number}": key for number, key in enumerate(keys)}, columns)

    async def create(self, connection: asyncpg.Connection) -> None:
        types = {**self.keys, **{name: type.name for name, type in self.columns.items()}}
        columns = ", ".join(f"{quoted(name)} {type}" for name, type in types.items())
        key = ", ".join(map(quoted, self.keys))
        await connection.execute(f"CREATE TABLE {self.name} ({columns}, PRIMARY KEY ({key}))")
        await connection.execute(
            "SELECT brain.watch($1::text::regclass, $1, $2)", self.name, [*types]
        )

    async def restrict(self, connection: asyncpg.Connection, rule: Mapping[str, str]) -> None:
        statement = "SELECT brain.restrict($1::text::regclass, $2::text::jsonb)"
        await connection.execute(statement, self.name, json.dumps(rule))
        self.rule = rule

    def add_view(self, filter: str | None, claims: Mapping[str, Any]) -> View:
        condition = "true" if filter is None else filter_in_sql(filter, self.columns)
        self.views.append(View(filter, condition, claims))
        return self.views[-1]

    async def fill(self, connection: asyncpg.Connection, chance: Random, rows: int) -> None:
        """Insert up to so many rows."""
        for _ in range(rows):
            await connection.execute(self.insert(chance))

    async def share_of(self, connection: asyncpg.Connection, filter: str) -> float:
        """Return the share of the rows that match a filter."""
        condition = filter_in_sql(filter, self.columns)
        statement = f"SELECT avg((({condition}) IS TRUE)::int)::float8 FROM {self.name}"
        return float(await connection.fetchval(statement) or 0)

    async def state(self, connection: asyncpg.Connection) -> State:
        """Read the table, with PostgreSQL's own JSON of each value."""
        key = ", ".join(f"to_json({quoted(name)})" for name in self.keys)
        row = ", ".join(
            f"{string(name)}, to_json({quoted(name)})" for name in [*self.keys, *self.columns]
        )
        shown = ", ".join(view.in_sql(self.rule) for view in self.views)
        records = await connection.fetch(
            f"SELECT json_build_array({key})::text, json_build_object({row})::text,"
            f" ARRAY[{shown}]::boolean[] FROM {self.name}"
        )
        rows: Rows = {}
        views: list[Rows] = [{} for _ in self.views]
        for key_text, row_text, are_shown in records:
            rows[json.dumps(parsed(key_text))] = found = parsed(row_text)
            for view, is_shown in zip(views, are_shown, strict=True):
                if is_shown:
                    view[json.dumps(parsed(key_text))] = found
        return State(rows, views)

    # Statements of writers.

    def random_key(self, chance: Random) -> dict[str, str]:
        return {name: f"{string(chance.choice(KEYS[type]))}" for name, type in self.keys.items()}

    def random_values(self, chance: Random, names: Sequence[str]) -> dict[str, str]:
        return {name: literal(random_value(chance, self.columns[name]))[2:] for name in names}

    def where(self, key: Mapping[str, str]) -> str:
        return " AND ".join(f"{quoted(name)} = {value}" for name, value in key.items())

    def insert(self, chance: Random) -> str:
        values = self.random_key(chance) | self.random_values(chance, [*self.columns])
        return (
            f"INSERT INTO {self.name} ({', '.join(map(quoted, values))})"
            f" VALUES ({', '.join(values.values())}) ON CONFLICT DO NOTHING"
        )

    def update(self, chance: Random, where: str) -> str:
        names = chance.sample(sorted(self.columns), chance.randint(1, len(self.columns)))
        return self._update(self.random_values(chance, names), where)

    def rename(self, chance: Random) -> str:
        """Return an update of a key, which fails if there is another row with the new key."""
        values = self.random_key(chance)
        if chance.random() < 0.5:
            values |= self.random_values(chance, chance.sample(sorted(self.columns), 1))
        return self._update(values, self.where(self.random_key(chance)))

    def delete(self, where: str) -> str:
        return f"DELETE FROM {self.name} WHERE {where}"

    def _update(self, values: Mapping[str, str], where: str) -> str:
        changes = ", ".join(f"{quoted(name)} = {value}" for name, value in values.items())
        return f"UPDATE {self.name} SET {changes} WHERE {where}"
