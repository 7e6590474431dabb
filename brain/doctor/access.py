"""What the client may read: the channels of its token, the access function, the row rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import asyncpg
import orjson

from brain.auth.identity import Identity
from brain.database.connection import first_line
from brain.doctor.address import Place
from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, NotChecked, failure, ok, warning
from brain.doctor.subscribing import subscribed
from brain.doctor.token import identity_of
from brain.message.matching import INTERNAL

NO_CHANNEL = NotChecked("no channel was named", "pass --channel with what the client subscribes to")
HAS_FUNCTION = """
    SELECT EXISTS (SELECT FROM pg_proc
                    WHERE proname = 'may_read' AND pronamespace = to_regnamespace('brain'))
"""
KNOWN = """
    SELECT name, 'feed' AS what FROM brain.feeds
     UNION ALL
    SELECT channel, 'watched' FROM brain.watched
"""
RULES = """
    SELECT w.channel, w.rules, a.allowed
      FROM brain.watched w
      LEFT JOIN LATERAL brain.row_access(ARRAY[w.channel], $2::text::jsonb) a ON true
     WHERE w.channel = ANY ($1) AND w.rules <> '{}'
"""


def channels_of(examination: Examination) -> list[str]:
    """Return the channels that were named. Raises `NotChecked`."""
    if not examination.request.channels:
        raise NO_CHANNEL
    return list(examination.request.channels)


def table_channel(name: str) -> str:
    """Return the channel of a name, which may be that of one row: `orders:7`."""
    return name.partition(":")[0]


@check("access.channel")
async def channel(examination: Examination) -> Finding:
    """A table is watched on the channel."""
    names = channels_of(examination)
    connection = await examination.migrated()
    known = {row["name"]: row["what"] for row in await connection.fetch(KNOWN)}
    missing = [name for name in names if known.get(table_channel(name)) != "watched"]
    if not missing:
        return ok(f"a table is watched on {', '.join(names)}")
    name = table_channel(missing[0])
    near = get_close_matches(name, known, 1)
    if known.get(name) == "feed":
        hint = f"{name} is a feed, which has an address of its own: docs/feeds.md"
    else:
        hint = f"brain watch {name} --columns A,B" + (f"; or is it {near[0]}?" if near else "")
    return warning(
        f"no table is watched on the channel {name}: it has published messages alone",
        hint,
        [f"none on {table_channel(other)} either" for other in missing[1:]],
    )


@check("access.granted")
async def granted(examination: Examination) -> Finding:
    """The token may read the channel, as the settings and the database here decide it."""
    names = channels_of(examination)
    identity = identity_of(examination)
    connection = await examination.migrated()
    denied: list[tuple[str, str]] = []
    if not identity.is_unlimited and await connection.fetchval(HAS_FUNCTION):
        how = "brain.may_read allows it"
        for name in names:
            if (reason := await why_function_denies(connection, identity, name)) is not None:
                denied.append((f"the channel {name} may not be read: {reason}", CORRECT_FUNCTION))
    else:
        how = f"its channels are {' '.join(identity.readable) or 'none'}"
        denied = [why_claims_deny(identity, name) for name in names if not reads(identity, name)]
    if denied:
        return failure(denied[0][0], denied[0][1], [line for line, _ in denied[1:]])
    return ok(f"the client may read {', '.join(names)}: {how}")


CORRECT_FUNCTION = (
    "correct brain.may_read(claims jsonb, channel text), or what it reads (docs/operating.md, Who"
    " may read what)"
)


def reads(identity: Identity, name: str) -> bool:
    return identity.may_read(name) or identity.may_read(table_channel(name))


def why_claims_deny(identity: Identity, name: str) -> tuple[str, str]:
    """Return why the claims of a token do not let it read a channel, and the way out."""
    if name.startswith(INTERNAL):
        return f"{name} is a channel of Brain's own, which nobody may read", "read another channel"
    patterns = " ".join(identity.readable) or "none"
    if identity.user is None:
        return (
            f"without a token the channel {name} may not be read: BRAIN_PUBLIC_CHANNELS is"
            f" {patterns}",
            f"pass a token, or add {name} to BRAIN_PUBLIC_CHANNELS",
        )
    if "channels" in identity.claims:
        return (
            f"the channel {name} may not be read: the claim channels of the token is {patterns}",
            f"have a token issued with {name} in the claim channels",
        )
    return (
        f"the channel {name} may not be read: BRAIN_DEFAULT_CHANNELS is {patterns}",
        f"have a token issued with the claim channels, or add {name} to BRAIN_DEFAULT_CHANNELS",
    )


async def why_function_denies(
    connection: asyncpg.Connection, identity: Identity, name: str
) -> str | None:
    """Return why the access function does not let a client read a channel; None if it does."""
    claims = orjson.dumps(dict(identity.claims)).decode()
    try:
        async with connection.transaction(readonly=True):
            for each in dict.fromkeys((name, table_channel(name))):
                if await connection.fetchval(
                    "SELECT brain.may_read($1::text::jsonb, $2)", claims, each
                ):
                    return None
    except asyncpg.QueryCanceledError:
        return "brain.may_read does not return in time"
    except asyncpg.PostgresError as error:
        return f"brain.may_read fails: {first_line(error)}"
    return "brain.may_read does not return true"


@check("access.rows")
async def rows(examination: Examination) -> Finding:
    """The row rules of the channel let the client see rows."""
    names = channels_of(examination)
    identity = identity_of(examination)
    connection = await examination.migrated()
    claims = orjson.dumps(dict(identity.claims)).decode()
    wanted = [table_channel(name) for name in names]
    found = await connection.fetch(RULES, wanted, claims)
    if not found:
        return ok("the channel has no row rules: all rows are shown")
    lines = []
    for row in found:
        lacking = lacking_claims(orjson.loads(row["rules"]), orjson.loads(row["allowed"] or "{}"))
        if lacking:
            lines.append(f"no row of {row['channel']} is shown to the client: {', '.join(lacking)}")
    if lines:
        return failure(
            lines[0],
            "have a token issued with that claim, or change the rules: brain restrict",
            lines[1:],
        )
    return ok(
        "the client sees its own rows alone: row rules",
        [f"{row['channel']}: {rule}" for row in found for rule in rules_in(row)],
    )


def lacking_claims(rules: Mapping[str, str], allowed: Mapping[str, Any]) -> list[str]:
    """Return the rules for which the token has no value; none if it is exempt."""
    columns = {name: values for name, values in allowed.items() if name}
    return [
        f"the column {column} has to have the claim {claim}, and the token has none that fits"
        for column, claim in rules.items()
        if allowed.keys() - {""} and not columns.get(column)
    ]


def rules_in(row: asyncpg.Record) -> Iterable[str]:
    for column, claim in orjson.loads(row["rules"]).items():
        yield f"{column} is the claim {claim}"


@check("access.subscribed", most_seconds=12)
async def of_brain(examination: Examination) -> Finding:
    """The running Brain grants the subscription, with the filter."""
    names, place = channels_of(examination), Place.of(examination.url)
    refused: list[tuple[str, str]] = []
    restricted = []
    for name in names:
        frame: dict[str, Any] = {"channel": name}
        if examination.request.where is not None:
            frame["where"] = examination.request.where
        answer = await subscribed(place, examination.request.token, frame)
        if answer.get("type") != "subscribed":
            text = f"Brain refuses {name}: {answer.get('message')} ({answer.get('code')})"
            refused.append((text, str(answer.get("advice") or "see access.granted")))
        elif answer.get("restricted"):
            restricted.append(f"{name}: row rules decide which rows it gets")
    if refused:
        return failure(refused[0][0], refused[0][1], [line for line, _ in refused[1:]])
    return ok(f"Brain grants the subscription to {', '.join(names)}", restricted)
