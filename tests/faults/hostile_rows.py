"""
A scenario of rows that other systems broke on: every type, size, nesting, name, setting, encoding.

Each statement runs twice, on a watched table and on a twin that is not watched, and has to have the
same outcome. Meanwhile a witness listens to another channel, which has to be complete and in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random

import asyncpg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.faults.figures import Figure, Findings
from tests.faults.fuzz import health
from tests.faults.load import loaded
from tests.faults.observed import ObservedNode, served, watched_memory
from tests.faults.scene import Stage, connected
from tests.faults.witness import witnessed

RATE = 20
LATEST_SECONDS = 1.0
TABLES = 5
KEYS = 12
MOST_BATCH = 6
LOCK_EVERY = 60
REBUILD_EVERY = 40
LOCKED_SECONDS = 10.0
END_SECONDS = 60.0
KILOBYTE = 1024

NAMES = (
    *("a", "key", "data", "new", "old", "r", "parts", "id2", "select", "x$capture$y", "$body$"),
    *('"; DROP TABLE t; --', "it's", "back\\slash", "per%cent", "%s", "%1$I", "{brace}", "a b"),
    *("x" * 63, "UPPER", "new.a", "_"),
)
SETTINGS = (
    *("extra_float_digits = -15", "bytea_output = escape", "DateStyle = 'German, DMY'"),
    *("IntervalStyle = sql_standard", "TimeZone = 'Asia/Kathmandu'", "quote_all_identifiers = on"),
    *("standard_conforming_strings = off", "transform_null_equals = on", "array_nulls = off"),
    *("plpgsql.extra_errors = 'all'", "check_function_bodies = off", "row_security = off"),
    *("default_transaction_isolation = serializable", "plan_cache_mode = force_generic_plan"),
    *("default_transaction_isolation = 'repeatable read'", "plan_cache_mode = force_custom_plan"),
    *("lc_monetary = 'C.UTF-8'", "escape_string_warning = off", "work_mem = '64kB'"),
)
TYPES_OF_USER = """
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy');
    CREATE DOMAIN cents AS numeric(40, 20);
    CREATE TYPE place AS (name text, at point, since date);
"""
WIDE = {
    "UTF8": (r"E'\u20ac'", r"E'\U0001F600'", r"E'\u202e'", r"E'\uFFFD'"),
    "LATIN1": ("chr(233)", "chr(255)", "chr(128)"),
    "WIN1252": ("chr(129)", "chr(128)", "chr(233)", "chr(157)"),
    "SQL_ASCII": (r"E'\xe9'", r"E'\xff\xfe'", r"E'\xc3'", r"E'\xc3\xa9'"),
    "EUC_JP": (r"E'\xb0\xa1'", r"E'\xa2\xaf'", r"E'\xa2\xb0'"),
}
"""SQL for characters that an encoding has, and others may not have."""


class Values:
    """Makes hostile values, as SQL expressions, at random."""

    def __init__(self, chance: Random, encoding: str, most_bytes: int) -> None:
        self._chance = chance
        self._wide = WIDE[encoding]
        self._most_bytes = most_bytes
        self.types: dict[str, Callable[[], str]] = {
            "text": self._text,
            "varchar": self._text,
            "bytea": lambda: f"convert_to({self._text()}, getdatabaseencoding())",
            "json": self._json,
            "jsonb": lambda: f"({self._json(clean=True)})::jsonb",
            "text[]": lambda: f"ARRAY[{self._text()}, NULL, {self._text()}]",
            "int": lambda: self._one("0", "-1", "2147483647", "-2147483648"),
            "bigint": lambda: self._one("9223372036854775807", "9007199254740993", "0"),
            "numeric": lambda: self._one(
                "'1e400'", "'-1e-400'", "'NaN'", "'Infinity'", "12345678901234567890.1234567890"
            ),
            "float8": lambda: self._one(
                "'1e308'", "'-0'", "'NaN'", "'-Infinity'", "0.1+0.2::float8"
            ),
            "timestamptz": lambda: self._one("'infinity'", "'4713-01-01 BC'", "'2026-02-06 1:30'"),
            "date": lambda: self._one("'-infinity'", "'5874897-12-31'", "'2026-02-06'"),
            "interval": lambda: self._one("'1 year -3 days 04:05:06.7'", "'-178000000 years'"),
            "daterange": lambda: self._one("'[2026-01-31,2026-02-06)'", "'empty'", "'(,)'"),
            "int[]": lambda: self._one("'{{1,2},{3,NULL}}'", "'{}'", "'[5:6]={1,2}'"),
            "money": lambda: self._one("1.5", "-92233720368547758.08"),
            "uuid": lambda: "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "inet": lambda: "'192.168.0.1/24'",
            "bit varying": lambda: "B'10101'",
            "tsvector": lambda: f"to_tsvector('simple', left({self._text()}, 1000))",
            "point": lambda: "'(1e300,NaN)'",
            "mood": lambda: self._one("'sad'", "'so so'"),
            "cents": lambda: "1.10",
            "place": lambda: f"ROW({self._text()}, '(1,2)', 'infinity')::place",
            "regclass": lambda: "'pg_catalog.pg_class'",
            "xid8": lambda: "'18446744073709551615'",
            "boolean": lambda: self._one("true", "false"),
        }

    def of(self, type: str) -> str:
        return "NULL" if self._chance.random() < 0.15 else self.types[type]()

    def _one(self, *values: str) -> str:
        return self._chance.choice(values)

    def _text(self) -> str:
        length = int(self._most_bytes ** self._chance.random())
        match self._chance.randrange(5):
            case 0:
                return self._one("''", "' '", "'null'", "E'\\\\'", "'\"'", "'</script>'")
            case 1:
                return f"repeat({self._chance.choice(self._wide)}, {max(1, length // 4)})"
            case 2:
                return f"repeat(chr({self._chance.randrange(1, 32)}), {max(1, length // 8)})"
            case 3:
                return f"repeat('x', {length})"
            case _:  # does not compress
                seed = self._chance.randrange(10**6)
                count = max(1, length // 32)
                return (
                    f"(SELECT string_agg(md5(({seed} + i)::text), '')"
                    f" FROM generate_series(1, {count}) i)"
                )

    def _json(self, *, clean: bool = False) -> str:
        """Return JSON; what jsonb would refuse only unless it is to be `clean`."""
        depth = self._chance.choice((1, 100, 300, 1100, 3000))
        choices = [
            f"(repeat('[', {depth}) || repeat(']', {depth}))::json",
            '\'{"a": 1.10, "b": 12345678901234567890.123456789, "a": 2}\'',
            f"to_json({self._text()})",
            "'null'",
            "'1e400'",
        ]
        if not clean:
            choices += ['E\'{"a":\\n1,\\r\\n"a":2}\'', "'\"\\u0000\"'", "'\"\\ud800\"'"]
        return self._one(*choices)


@dataclass
class Table:
    """A watched table in the schema `watched`, and its twin in the schema `twins`."""

    name: str
    columns: dict[str, str]
    """Name and type of those that are not the key."""
    is_deferred: bool
    """After a change in the same transaction PostgreSQL then refuses to truncate or alter it."""


@dataclass
class Tally:
    statements: int = 0
    refused: int = 0
    different: list[str] = field(default_factory=list)

    def note(self, batch: Sequence[str], twins: Sequence[str], watched: Sequence[str]) -> None:
        """Compare the outcomes of statements on the twins with those on the watched tables."""
        for text, without, with_brain in zip(batch, twins, watched, strict=True):
            self.statements += 1
            self.refused += without.startswith("refused")
            if without != with_brain:
                self.different.append(f"{text[:200]}: {without} became {with_brain}")


class Follower:
    """A client of the hostile channels, which counts its messages."""

    def __init__(self) -> None:
        self.received = 0
        self.was_cut = False
        self.at_end = asyncio.Event()

    async def listen(self, connection: ClientConnection) -> None:
        try:
            while True:
                head = bytes(await connection.recv(decode=False))[:100]
                if b'"type":"the end"' in head:
                    self.at_end.set()
                elif b'"type":"connected"' not in head:
                    self.received += 1
        except (OSError, WebSocketException):
            self.was_cut = True


async def hostile_rows(
    stage: Stage, *, statements: int, most_bytes: int, encoding: str = "UTF8"
) -> Findings:
    """Write hostile rows to watched tables while a good client listens to another channel."""
    chance, tally = stage.chance, Tally()
    values = Values(chance, encoding, most_bytes)
    async with (
        served(stage, {}, encoding=encoding) as node,
        loaded(node.database) as load,
        connected(node.database) as connection,
        connected(node.database) as locking,
    ):
        await connection.execute(TYPES_OF_USER)
        tables = await create_tables(connection, values, chance)
        async with (
            witnessed(node.port) as witness,
            following(node, tables) as follower,
            watched_memory(node) as memory,
            load.flowing(RATE),
        ):
            await witness.receives_more()
            differing = hanging = 0
            for number in range(statements // MOST_BATCH):
                if number % LOCK_EVERY == LOCK_EVERY - 1:
                    hanging += not await read_while_locked(node, locking, chance.choice(tables))
                if number % REBUILD_EVERY == REBUILD_EVERY - 1:
                    # By now too many of their columns have been dropped.
                    differing += await count_differing(connection, tables)
                    tables = await create_tables(connection, values, chance)
                await write(connection, tables, values, chance, tally)
            await connection.execute("SELECT brain.publish('h0', 'the end')")
            async with asyncio.timeout(END_SECONDS):
                await follower.at_end.wait()
            figures = witness.figures(LATEST_SECONDS)
            differing += await count_differing(connection, tables)
            logged = await connection.fetchval(
                "SELECT count(*) FROM brain.events WHERE channel ~ '^h[0-9]' AND type <> 'the end'"
                " OR channel ~ '^h[0-9]' AND type IS NULL"
            )
            return Findings(
                (
                    Figure("statements", tally.statements, least=1),
                    Figure("refused", tally.refused),
                    Figure("locked tables whose client was not told", hanging, most=0),
                    Figure(
                        f"other outcomes than without Brain{first(tally.different)}",
                        len(tally.different),
                        most=0,
                    ),
                    Figure("tables that differ", differing, most=0),
                    Figure("logged", logged, least=1),
                    Figure("received", follower.received, least=logged, most=logged),
                    Figure("the client of the hostile rows was cut", follower.was_cut, most=0),
                    *figures,
                    memory.growth(512),
                    *await health(node),
                )
            )


def first(different: Sequence[str]) -> str:
    return f" ({different[0]})" if different else ""


async def create_tables(
    connection: asyncpg.Connection, values: Values, chance: Random
) -> list[Table]:
    """Create watched tables and their twins, in place of those that are there."""
    await connection.execute(
        "RESET ALL; DROP SCHEMA IF EXISTS watched, twins CASCADE;"
        " CREATE SCHEMA watched; CREATE SCHEMA twins"
    )
    tables = []
    for number in range(TABLES):
        names = chance.sample(NAMES, chance.randint(3, 9))
        types = {name: chance.choice([*values.types]) for name in names}
        table = Table(f"h{number}", types, is_deferred=chance.random() < 0.3)
        columns = ", ".join(f"{quoted(name)} {type}" for name, type in table.columns.items())
        for schema in ("watched", "twins"):
            await connection.execute(
                f"CREATE TABLE {schema}.{table.name} (id int PRIMARY KEY, {columns})"
            )
        await connection.execute(
            "SELECT brain.watch($1::text::regclass, $2, $3, timing => $4, column_bytes => $5,"
            " row_bytes => $6)",
            f"watched.{table.name}",
            table.name,
            ["id", *chance.sample(names, chance.randint(1, len(names)))],
            "deferred" if table.is_deferred else "immediate",
            chance.choice((8192, 262144)),
            chance.choice((8192, 1048576)),
        )
        tables.append(table)
    return tables


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def write(
    connection: asyncpg.Connection,
    tables: Sequence[Table],
    values: Values,
    chance: Random,
    tally: Tally,
) -> None:
    """Run a few statements on each of the twins, under some settings, in a transaction or not."""
    await connection.execute("RESET ALL; SET search_path = public")
    for setting in chance.sample(SETTINGS, chance.randrange(4)):
        with suppress(asyncpg.PostgresError):  # which not every server has
            await connection.execute(f"SET {setting}")
    batch = [statement(chance.choice(tables), values, chance) for _ in range(MOST_BATCH)]
    if chance.random() < 0.3:
        batch = ["BEGIN", *batch, chance.choice(("COMMIT", "COMMIT", "ROLLBACK"))]
    twins, watched = [
        [await outcome(connection, text.replace("{schema}", schema)) for text in batch]
        for schema in ("twins", "watched")
    ]
    tally.note(batch, twins, watched)
    if chance.random() < 0.2:
        data = values.types["jsonb"]()
        await outcome(connection, f"SELECT brain.publish('h0', 'published', {data})")


async def outcome(connection: asyncpg.Connection, text: str) -> str:
    try:
        return await connection.execute(text)
    except asyncpg.PostgresError as error:
        return f"refused {error.sqlstate}"


def statement(table: Table, values: Values, chance: Random) -> str:
    """Return a statement on a table of the schema `{schema}`."""
    name = f"{{schema}}.{table.name}"
    key = chance.randrange(KEYS)
    columns = chance.sample([*table.columns], chance.randint(1, len(table.columns)))
    match chance.randrange(20):
        case 0:
            return f"UPDATE {name} SET id = {KEYS + key} WHERE id = {key}"
        case 1 | 2 | 3:
            return f"DELETE FROM {name} WHERE id = {key}"
        case 4 if not table.is_deferred and chance.random() < 0.3:
            return f"TRUNCATE {name}"
        case 5 if not table.is_deferred and chance.random() < 0.1:
            return alteration(table, chance, name)
        case 6 | 7 | 8 | 9 | 10 | 11:
            sets = ", ".join(f"{quoted(c)} = {values.of(table.columns[c])}" for c in columns)
            return f"UPDATE {name} SET {sets} WHERE id = {key}"
        case _:
            listed = ", ".join(map(quoted, columns))
            made = ", ".join(values.of(table.columns[column]) for column in columns)
            return f"INSERT INTO {name} (id, {listed}) VALUES ({key}, {made})"


def alteration(table: Table, chance: Random, name: str) -> str:
    """Alter a column behind the back of the trigger; later statements that name it are refused."""
    column = quoted(chance.choice([*table.columns]))
    return chance.choice(
        (
            f"ALTER TABLE {name} RENAME {column} TO renamed",
            f"ALTER TABLE {name} DROP COLUMN IF EXISTS {column}",
            f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS added int DEFAULT 7",
            f"ALTER TABLE {name} ALTER {column} TYPE text USING NULL",
        )
    )


async def count_differing(connection: asyncpg.Connection, tables: Sequence[Table]) -> int:
    """Return how many tables hold other rows than their twins."""
    await connection.execute("RESET ALL")
    count = 0
    for table in tables:
        # By their images: not every type has an order.
        count += await connection.fetchval(
            f"""
            SELECT (SELECT coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)
                      FROM watched.{table.name} t)
                <> (SELECT coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)
                      FROM twins.{table.name} t)
            """
        )
    return count


async def read_while_locked(node: ObservedNode, locking: asyncpg.Connection, table: Table) -> bool:
    """Return True if a client that asks for a snapshot of a locked table is told so in time."""
    async with locking.transaction():
        await locking.execute("SET LOCAL lock_timeout = '5s'")
        await locking.execute(f"LOCK TABLE watched.{table.name} IN ACCESS EXCLUSIVE MODE")
        url = f"ws://127.0.0.1:{node.port}/ws?channel={table.name}&snapshot"
        try:
            async with (
                asyncio.timeout(LOCKED_SECONDS),
                connect(url, proxy=None, max_size=None, close_timeout=1) as client,
            ):
                await client.wait_closed()
                return client.close_code == 4010 and "is locked" in (client.close_reason or "")
        except (TimeoutError, OSError, WebSocketException):
            return False


@asynccontextmanager
async def following(node: ObservedNode, tables: Sequence[Table]) -> AsyncIterator[Follower]:
    channels = "&".join(f"channel={table.name}" for table in tables)
    follower = Follower()
    async with connect(
        f"ws://127.0.0.1:{node.port}/ws?{channels}",
        proxy=None,
        compression=None,
        max_size=None,
        max_queue=None,
        ping_interval=None,
        close_timeout=1,
    ) as connection:
        listening = asyncio.create_task(follower.listen(connection))
        try:
            yield follower
        finally:
            listening.cancel()
            await asyncio.wait([listening])
