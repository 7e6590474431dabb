"""Row rules: who gets which rows, by every door, while the rules change; against an oracle."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode

import asyncpg
import httpx2
import jwt
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.faults.figures import Figure, Findings
from tests.faults.observed import served
from tests.faults.scene import ScenarioFailed, Stage, connected

SECRET = "0123456789abcdef0123456789abcdef"
PATIENCE_SECONDS = 30.0
IDENTITIES = 12
KEYS = 30
WRITES = 40
CALM_SECONDS = 0.5

TABLE = """
    CREATE TYPE size AS ENUM ('small', 'large');
    CREATE TABLE orders (id int PRIMARY KEY, customer int, team text, urgent boolean, size size,
                         version int NOT NULL);
    SELECT brain.watch('orders', 'orders', '{id,version}');
    SELECT brain.define_feed('my-orders', $$
        SELECT coalesce(jsonb_agg(version ORDER BY version), '[]') FROM orders
         WHERE customer::text = $1
    $$, '{orders}', takes_argument => true, argument_claim => 'customers');
"""
# A column and the claim that it is compared with.
PAIRS = {"customer": "customers", "team": "teams", "urgent": "urgent", "size": "sizes"}
# Claims of every type, for columns of every type.
CLAIMS: list[Any] = [
    *(7, 8, "7", " 8 ", 7.5, "7.0", 10**30),
    *("red", "blue", "Red", "red ", "", "small", "large", "LARGE"),
    *(True, False, "true", "t", "yes", "off", 0, 1),
    *(None, {}, {"a": 7}, [], [7, 8], ["red", "7", None], [["red"]], ["small", "x", 7, True]),
]
RULES = [
    {},
    *({column: claim} for column, claim in PAIRS.items()),
    {"customer": "customers", "team": "teams"},
    {"team": "teams", "urgent": "urgent", "size": "sizes"},
    {"customer": "teams"},
]
EXEMPT: list[dict[str, Any]] = [{}, {"role": "admin"}, {"role": ["admin", 7], "staff": True}]
# As PostgreSQL reads a boolean.
TRUE, FALSE = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")

Row = Mapping[str, Any]


class Rule(NamedTuple):
    """What was in force when something was written."""

    columns: Mapping[str, str]
    exempt: Mapping[str, Any]


class Shown(NamedTuple):
    """A version of a row, as somebody may see it."""

    rule: Rule
    row: Row


def scalars(claim: Any) -> list[Any]:
    values = claim if isinstance(claim, list) else [claim]
    return [one for one in values if isinstance(one, str | int | float)]


def text_of(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def means(column: str, claim: Any, value: Any) -> bool:
    """Return True if a claim stands for the value of a column: the oracle's own idea of it."""
    text = text_of(claim)
    match column:
        case "customer":
            digits = text.strip()
            return digits.removeprefix("-").isdigit() and int(digits) == value
        case "urgent":
            word = text.strip().lower()
            return word in (TRUE if value else FALSE)
        case _:
            return bool(text == value)


def may_see(claims: Mapping[str, Any], shown: Shown) -> bool:
    """Return True if a client with these claims may see a version of a row."""
    rule, row = shown
    if not rule.columns:
        return True
    for name, allowed in rule.exempt.items():
        has = {text_of(one) for one in scalars(claims.get(name))}
        if has & {text_of(one) for one in scalars(allowed)}:
            return True
    return all(
        row[column] is not None
        and any(means(column, one, row[column]) for one in scalars(claims.get(claim)))
        for column, claim in rule.columns.items()
    )


@dataclass
class Oracle:
    """What was written, and who may see it."""

    shown: dict[int, list[Shown]] = field(default_factory=dict)
    """By version: as it was written, and as it was deleted or left behind."""
    left: dict[int, list[Shown]] = field(default_factory=dict)
    """By key: what a client may have seen before it left its view."""

    def note(self, version: int, rule: Rule, row: Row) -> None:
        self.shown.setdefault(version, []).append(Shown(rule, row))
        self.left.setdefault(row["id"], []).append(Shown(rule, row))

    def allows(self, claims: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
        """Return True if a client with these claims may get a message."""
        data = message["data"]
        if message["type"] == "left":
            return any(may_see(claims, one) for one in self.left.get(data["key"][0], ()))
        return any(may_see(claims, one) for one in self.shown.get(data["version"], ()))


class Client:
    """One user with claims, and what it got on its open connection."""

    def __init__(self, name: str, claims: dict[str, Any], port: int) -> None:
        self.name = name
        self.claims = claims
        self.port = port
        self.token = jwt.encode({**claims, "sub": name, "exp": time.time() + 3600}, SECRET)
        self.messages: list[dict[str, Any]] = []
        self.resets = 0
        self.cursor = ""
        self._ends: set[int] = set()
        self._changed = asyncio.Event()

    def connected(self, **query: str) -> connect:
        """Return a connection of this user that subscribes to the channel."""
        url = f"ws://127.0.0.1:{self.port}/ws?{urlencode({'channel': 'orders', **query})}"
        return connect(url, proxy=None, additional_headers=bearer(self))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with self.connected(cursor="") as connection:
            task = asyncio.create_task(self._listen(connection))
            yield
            task.cancel()
            await asyncio.wait([task])

    async def _listen(self, connection: ClientConnection) -> None:
        with suppress(OSError, WebSocketException):
            async for text in connection:
                self.take(orjson.loads(text))

    def take(self, message: dict[str, Any]) -> None:
        self.cursor = message.get("cursor", self.cursor)
        match message["type"]:
            case "reset":
                self.resets += 1
            case "end":
                self._ends.add(message["data"])
            case "connected" | "heartbeat":
                pass
            case _:
                self.messages.append(message)
        self._changed.set()

    async def reaches(self, number: int) -> None:
        """Return once the message that ends a round has come."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while number not in self._ends:
                self._changed.clear()
                await self._changed.wait()


@dataclass
class Tally:
    """What every door let through, per door."""

    tuples: Counter[str] = field(default_factory=Counter)
    leaked: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    example: str = ""

    def compare(self, door: str, client: Client, got: Sequence[int], due: Sequence[int]) -> None:
        """Compare the versions that a client got with those that it should get."""
        self.tuples[door] += len(set(got) | set(due)) or 1
        leaked, lost = set(got) - set(due), set(due) - set(got)
        self.leaked[door] += len(leaked)
        self.lost[door] += len(lost)
        if (leaked or lost) and not self.example:
            self.example = f"{door}: {client.claims} leaked {leaked}, lost {lost}"

    def judge(self, door: str, client: Client, oracle: Oracle) -> None:
        """Judge all that a client got on its open connection while anything changed."""
        for message in client.messages:
            self.tuples[door] += 1
            if not oracle.allows(client.claims, message):
                self.leaked[door] += 1
                self.example = self.example or f"{door}: {client.claims} got {message}"


def random_claims(chance: Random) -> dict[str, Any]:
    names = [*PAIRS.values(), "role", "staff"]
    claims = {name: chance.choice(CLAIMS) for name in names if chance.random() < 0.8}
    if chance.random() < 0.15:
        claims["role"] = chance.choice(["admin", ["user", "admin"], "7"])
    return claims


class Writer:
    """Writes random rows, each write with the rule that is in force."""

    def __init__(self, connection: asyncpg.Connection, chance: Random, oracle: Oracle) -> None:
        self._connection = connection
        self._chance = chance
        self._oracle = oracle
        self._versions = count(1)
        self.rows: dict[int, dict[str, Any]] = {}

    async def write(self) -> tuple[int, Shown]:
        """Write once; return the version that clients may get, as it is shown."""
        chance = self._chance
        id = chance.randrange(KEYS)
        before = self.rows.get(id)
        version = next(self._versions)
        row = {
            "id": id,
            "customer": chance.choice([7, 8, 9, None]),
            "team": chance.choice(["red", "blue", "Red", "7", None]),
            "urgent": chance.choice([True, False, None]),
            "size": chance.choice(["small", "large", None]),
            "version": version,
        }
        async with self._connection.transaction():
            if before is not None and chance.random() < 0.2:
                await self._connection.execute("DELETE FROM orders WHERE id = $1", id)
                after = None
            else:
                after = row
                await self._connection.execute(
                    "INSERT INTO orders VALUES ($1, $2, $3, $4, $5::text::size, $6)"
                    " ON CONFLICT (id) DO UPDATE SET customer = excluded.customer,"
                    " team = excluded.team, urgent = excluded.urgent, size = excluded.size,"
                    " version = excluded.version",
                    *row.values(),
                )
            # The rules cannot change before the transaction that has written ends.
            record = await self._connection.fetchrow(
                "SELECT rules::text, exempt::text FROM brain.watched WHERE channel = 'orders'"
            )
        assert record is not None
        rule = Rule(orjson.loads(record["rules"]), orjson.loads(record["exempt"]))
        if before is not None:
            self._oracle.note(before["version"], rule, before)
        if after is None:
            assert before is not None
            del self.rows[id]
            return before["version"], Shown(rule, before)
        self.rows[id] = after
        self._oracle.note(version, rule, after)
        return version, Shown(rule, after)


class Trial:
    """A running Brain with clients, whose rules change."""

    def __init__(
        self,
        chance: Random,
        connections: Sequence[asyncpg.Connection],
        clients: Sequence[Client],
        http: httpx2.AsyncClient,
    ) -> None:
        self._chance = chance
        self._connection, self._changing = connections
        self._clients = clients
        self._http = http
        self._oracle = Oracle()
        self._writer = Writer(self._connection, chance, self._oracle)
        self._ends = count()
        self.tally = Tally()
        self.calm = 0
        """How often a client got what was written in a round without a reset."""

    async def play(self) -> None:
        """Change the rules while rows are written; then compare what each door shows."""
        rule = Rule(self._chance.choice(RULES), self._chance.choice(EXEMPT))
        change = asyncio.create_task(
            self._changing.execute(
                "SELECT brain.restrict('orders', $1::text::jsonb, $2::text::jsonb)",
                orjson.dumps(rule.columns).decode(),
                orjson.dumps(rule.exempt).decode(),
            )
        )
        for _ in range(WRITES // 4):
            await self._writer.write()
        await change
        await self._ended()
        await asyncio.sleep(CALM_SECONDS)  # for Brain to have noticed
        await self._ended()
        starts = [(one.cursor, len(one.messages), one.resets) for one in self._clients]
        written = [await self._writer.write() for _ in range(WRITES)]
        await self._ended()
        for client, start in zip(self._clients, starts, strict=True):
            due = [version for version, one in written if may_see(client.claims, one)]
            await self._compare(client, rule, start, due)

    def judge(self) -> None:
        """Judge all that the open connections got."""
        for client in self._clients:
            self.tally.judge("live, meanwhile", client, self._oracle)

    async def _compare(
        self, client: Client, rule: Rule, start: tuple[str, int, int], due: Sequence[int]
    ) -> None:
        cursor, before, resets = start
        if client.resets == resets:
            self.calm += 1
            got = [version for one in client.messages[before:] for version in versions_in(one)]
            self.tally.compare("live", client, got, due)
        self.tally.compare("resumed", client, await resumed(client, cursor), due)
        rows = [Shown(rule, row) for row in self._writer.rows.values()]
        now = [one.row["version"] for one in rows if may_see(client.claims, one)]
        self.tally.compare("snapshot", client, await snapshot(client), now)
        self.tally.compare("HTTP", client, await over_http(client, self._http), now)
        await self._compare_feed(client)

    async def _compare_feed(self, client: Client) -> None:
        """Read a feed whose argument is a claim of the token."""
        response = await self._http.get("/api/my-orders", headers=bearer(client))
        claim = client.claims.get("customers")
        is_possible = isinstance(claim, str | int) and not isinstance(claim, bool)
        rows = self._writer.rows.values()
        due = [one["version"] for one in rows if is_possible and str(one["customer"]) == str(claim)]
        self.tally.compare("feed", client, response.json() if is_possible else [], due)
        if (response.status_code == 200) is not is_possible:
            raise ScenarioFailed(f"the feed answers {response.status_code} to {client.claims}")

    async def _ended(self) -> None:
        """Wait until every client got all that was written."""
        number = next(self._ends)
        await self._connection.execute(
            "SELECT brain.publish('orders', 'end', $1::int::text::jsonb, u)"
            " FROM unnest($2::text[]) u",
            number,
            [client.name for client in self._clients],
        )
        await asyncio.gather(*(client.reaches(number) for client in self._clients))


async def row_rules(stage: Stage, *, rounds: int) -> Findings:
    """Change the rules again and again, while rows are written and read by every door."""
    settings = {"BRAIN_JWT_SECRET": SECRET, "BRAIN_DEFAULT_CHANNELS": "*"}
    async with (
        served(stage, settings) as node,
        connected(node.database) as connection,
        connected(node.database) as changing,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=30) as http,
        AsyncExitStack() as stack,
    ):
        await connection.execute(TABLE)
        chance = stage.chance
        clients = [Client(f"user-{n}", random_claims(chance), node.port) for n in range(IDENTITIES)]
        for client in clients:
            await stack.enter_async_context(client.listening())
        trial = Trial(chance, (connection, changing), clients, http)
        for _ in range(rounds):
            await trial.play()
        trial.judge()
        return Findings(figures(rounds, trial))


def figures(rounds: int, trial: Trial) -> Sequence[Figure]:
    tally = trial.tally
    first = f" ({tally.example})" if tally.example else ""
    return (
        Figure("rules", rounds, least=1),
        Figure("tuples", sum(tally.tuples.values()), least=1),
        *(
            Figure(f"{door} {n}, leaked", tally.leaked[door], most=0)
            for door, n in tally.tuples.items()
        ),
        Figure(f"lost{first}", sum(tally.lost.values()), most=0),
        Figure("compared without a reset", trial.calm, least=1),
    )


def versions_in(message: Mapping[str, Any]) -> list[int]:
    return [message["data"]["version"]] if "version" in message["data"] else []


async def resumed(client: Client, cursor: str) -> list[int]:
    """Return the versions that a client gets that resumes, up to the end of the round."""
    found: list[int] = []
    async with (
        client.connected(cursor=cursor) as websocket,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        while True:
            message = orjson.loads(await websocket.recv())
            match message["type"]:
                case "reset":
                    raise ScenarioFailed(f"a client that resumes was reset: {message}")
                case "end":
                    return found
                case "connected" | "heartbeat":
                    pass
                case _:
                    found += versions_in(message)


async def snapshot(client: Client) -> list[int]:
    found: list[int] = []
    async with (
        client.connected(snapshot="") as websocket,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        while True:
            message = orjson.loads(await websocket.recv())
            if message["type"] == "snapshot":
                found += [row["version"] for row in message["data"]["rows"]]
                if not message["data"]["more"]:
                    return found


async def over_http(client: Client, http: httpx2.AsyncClient) -> list[int]:
    response = await http.get("/api/brain/snapshot/orders", headers=bearer(client))
    response.raise_for_status()
    return [row["version"] for row in response.json()["rows"]]


def bearer(client: Client) -> dict[str, str]:
    return {"authorization": f"Bearer {client.token}"}
