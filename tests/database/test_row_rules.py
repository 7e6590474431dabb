"""Row rules: which rows of a watched table a client may see."""

from __future__ import annotations

import asyncpg
import pytest

from brain.message.event import Operation
from tests.database.changes import logged_events

pytestmark = pytest.mark.postgres_versions

ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, customer_id int, total numeric);
    SELECT brain.watch('orders', 'orders', '{id,total}');
    SELECT brain.restrict('orders', '{"customer_id": "sub"}', '{"role": "admin"}');
"""

NUMBER = "SELECT rule_number FROM brain.watched WHERE channel = 'orders'"


async def test_the_columns_of_a_rule_are_logged_apart_from_those_that_clients_get(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)

    events = await logged_events(
        database,
        connection,
        "INSERT INTO orders VALUES (1, 7, 9.90)",
        "UPDATE orders SET customer_id = 8",
        "UPDATE orders SET id = 2",
        "DELETE FROM orders",
    )
    records = await connection.fetch(
        "SELECT operation::text, data, rule_values, old_rule_values FROM brain.events"
        " WHERE channel = 'orders' AND operation <> 'R' ORDER BY id"
    )

    assert len(events) == 5
    number = await connection.fetchval(NUMBER)
    seven, eight = [f'{{"" : {number}, "customer_id" : {n}}}' for n in (7, 8)]
    assert [tuple(record) for record in records] == [
        ("I", '{"id" : 1, "total" : 9.90}', seven, None),
        ("U", '{"id" : 1, "total" : 9.90}', eight, seven),
        ("D", None, None, eight),
        ("U", '{"id" : 2, "total" : 9.90}', eight, eight),
        ("D", None, None, eight),
    ]


CLAIMS = {
    "a number": ('{"sub": 7}', "[7]"),
    "a text of digits": ('{"sub": "7"}', "[7]"),
    "a list": ('{"sub": ["7", 8, null, "x", 7]}', "[7,8]"),
    "another type": ('{"sub": "ann"}', "[]"),
    "null": ('{"sub": null}', "[]"),
    "missing": ("{}", "[]"),
    "an object": ('{"sub": {"a": 7}}', "[]"),
    "an empty list": ('{"sub": []}', "[]"),
    "a list in a list": ('{"sub": [[7]]}', "[]"),
    "out of range": ('{"sub": 1e400}', "[]"),
    "a fraction": ('{"sub": "7.5"}', "[]"),
    "SQL": ('{"sub": "7); DROP TABLE orders; --"}', "[]"),
}


@pytest.mark.parametrize("case", CLAIMS)
async def test_a_claim_is_what_postgresql_makes_of_it(
    connection: asyncpg.Connection, case: str
) -> None:
    await connection.execute(ORDERS)
    claims, expected = CLAIMS[case]

    (found,) = await connection.fetch(
        "SELECT * FROM brain.row_access('{orders,tasks}', $1::text::jsonb)", claims
    )

    number = await connection.fetchval(NUMBER)
    assert tuple(found) == ("orders", f'{{"":[{number}],"customer_id":{expected}}}')


@pytest.mark.parametrize(
    ("exempt", "claims", "is_exempt"),
    [
        ('{"role": "admin"}', '{"role": "admin"}', True),
        ('{"role": "admin"}', '{"role": ["user", "admin"]}', True),
        ('{"role": ["admin", "support"]}', '{"role": "support"}', True),
        ('{"role": "admin", "staff": true}', '{"staff": true}', True),
        ('{"staff": "true"}', '{"staff": true}', True),
        ('{"role": "[]"}', '{"role": [[]]}', False),
        ('{"role": "admin"}', '{"role": "administrator"}', False),
        ('{"role": "admin"}', '{"role": {"admin": true}}', False),
        ('{"role": "admin"}', '{"role": null}', False),
        ('{"role": "admin"}', "{}", False),
        ("{}", '{"role": "admin"}', False),
    ],
)
async def test_a_claim_may_exempt_from_rules(
    connection: asyncpg.Connection, exempt: str, claims: str, is_exempt: bool
) -> None:
    await connection.execute(ORDERS)
    await connection.execute(
        """SELECT brain.restrict('orders', '{"customer_id": "sub"}', $1::text::jsonb)""", exempt
    )

    (found,) = await connection.fetch(
        "SELECT allowed FROM brain.row_access('{orders}', $1::text::jsonb)", claims
    )

    assert ("customer_id" not in found["allowed"]) is is_exempt


# A type, a claim, and the JSON of what it stands for.
TYPES = [
    ("smallint", '"7"', "7"),
    ("bigint", '"9007199254740993"', "9007199254740993"),
    ("numeric(10,2)", '"7.50"', "7.50"),
    ("numeric(10,2)", '"7.505"', "7.505"),
    ("text", '"ann"', '"ann"'),
    ("text", "7", '"7"'),
    ("varchar(3)", '"anna"', '"anna"'),
    ("uuid", '"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'),
    ("boolean", "true", "true"),
    ("boolean", '"yes"', "true"),
    ("date", '"2026-11-28"', '"2026-11-28"'),
    ("date", '"2026-11-28 23:59"', ""),
    ("date", '"today"', ""),
    ("date", '"infinity"', '"infinity"'),
    ("mood", '"good"', '"good"'),
    ("short", '"anna"', '"anna"'),
]


@pytest.mark.parametrize(("type", "claim", "expected"), TYPES)
async def test_no_claim_becomes_another_value_by_its_conversion(
    connection: asyncpg.Connection, type: str, claim: str, expected: str
) -> None:
    """A cast to varchar(3) would make `ann` of `anna`, and one to numeric(10,2) round."""
    await connection.execute(
        f"""
        CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN short AS varchar(3);
        CREATE TABLE orders (id int PRIMARY KEY, owner {type});
        SELECT brain.watch('orders', 'orders', '{{id}}', rules => '{{"owner": "sub"}}')
        """
    )

    found = await connection.fetchval(
        "SELECT allowed FROM brain.row_access('{orders}', $1::text::jsonb)", f'{{"sub": {claim}}}'
    )

    assert found == f'{{"":[{await connection.fetchval(NUMBER)}],"owner":[{expected}]}}'


@pytest.mark.parametrize(
    ("rules", "exempt", "why"),
    [
        ('{"nothing": "sub"}', "{}", "no column nothing"),
        ('{"customer_id": 7}', "{}", "row rules name a claim for each column"),
        ('{"customer_id": ""}', "{}", "row rules name a claim for each column"),
        ("[]", "{}", "row rules name a claim for each column"),
        ('{"customer_id": "sub"}', "[]", "exemption"),
        ('{"customer_id": "sub"}', '{"role": {}}', "exemption"),
        ('{"customer_id": "sub"}', '{"role": null}', "exemption"),
        ('{"at": "sub"}', "{}", "cannot compare the column at of public.orders"),
        ('{"code": "sub"}', "{}", r"its type is character\(3\)"),
        ('{"data": "sub"}', "{}", "its type is jsonb"),
    ],
)
async def test_a_rule_that_cannot_work_is_refused(
    connection: asyncpg.Connection, rules: str, exempt: str, why: str
) -> None:
    await connection.execute(
        """
        CREATE TABLE orders (id int PRIMARY KEY, customer_id int, at timestamptz, code char(3),
                             data jsonb);
        SELECT brain.watch('orders', 'orders', '{id}')
        """
    )
    for call in ("brain.restrict('orders', $1::text::jsonb, $2::text::jsonb)",):
        with pytest.raises(asyncpg.RaiseError, match=why):
            await connection.execute(f"SELECT {call}", rules, exempt)
    with pytest.raises(asyncpg.RaiseError, match=why):
        await connection.execute(
            "SELECT brain.watch('orders', 'orders', '{id}', rules => $1::text::jsonb,"
            " exempt => $2::text::jsonb)",
            rules,
            exempt,
        )


async def test_a_table_with_row_security_needs_rules_or_a_word(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, owner text);"
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY"
    )
    watch = "SELECT brain.watch('orders', 'orders', '{id}'%s)"

    with pytest.raises(asyncpg.RaiseError, match="has row-level security"):
        await connection.execute(watch % "")
    await connection.execute(watch % """, rules => '{"owner": "sub"}'""")
    with pytest.raises(asyncpg.RaiseError, match="would be watched without row rules"):
        await connection.execute("SELECT brain.restrict('orders', '{}')")
    await connection.execute(watch % ", row_security => 'ignored'")
    await connection.execute("SELECT brain.restrict('orders', '{}')")

    (found,) = await connection.fetch("SELECT * FROM brain.watches WHERE channel = 'orders'")
    assert (found["rules"], found["row_security"]) == ("{}", "ignored")


@pytest.mark.parametrize("timing", ["immediate", "deferred"])
async def test_a_value_of_a_rule_is_never_omitted(
    database: str, connection: asyncpg.Connection, timing: str
) -> None:
    await connection.execute(
        f"""
        CREATE TABLE orders (id int PRIMARY KEY, owner text, note text);
        SELECT brain.watch('orders', 'orders', '{{id,note}}', timing => '{timing}',
                           rules => '{{"owner": "sub"}}')
        """
    )
    events = await logged_events(
        database,
        connection,
        "INSERT INTO orders VALUES (1, repeat('o', 7000), repeat('n', 2000000))",
        "UPDATE orders SET owner = 'ann'",
        "UPDATE orders SET note = 'small'",
        "UPDATE orders SET owner = repeat('o', 9000)",
        "UPDATE orders SET owner = 'ben'",
        "ALTER TABLE orders RENAME owner TO person",
        "UPDATE orders SET note = 'other'",
    )
    values = await connection.fetch(
        "SELECT operation::text, left(regexp_replace(rule_values, '\"\" : \\d+, ', ''), 30),"
        " left(regexp_replace(old_rule_values, '\"\" : \\d+, ', ''), 30)"
        " FROM brain.events WHERE channel = 'orders' ORDER BY id"
    )

    long = '{"owner" : "' + "o" * 18
    assert [tuple(record) for record in values][1:] == [
        ("I", long, None),
        ("U", '{"owner" : "ann"}', long),
        ("U", '{"owner" : "ann"}', '{"owner" : "ann"}'),
        ("R", None, None),
        ("R", None, None),
        ("R", None, None),
    ]
    assert [event.omitted for event in events[:3]] == [("note",), ("note",), ()]


async def test_without_rules_nothing_is_logged_of_them(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    await connection.execute("SELECT brain.restrict('orders', '{}')")

    await connection.execute("INSERT INTO orders VALUES (1, 7, 1); UPDATE orders SET total = 2")

    assert await connection.fetchval("SELECT count(rule_values) FROM brain.events") == 0


async def test_a_rule_waits_for_those_who_write(
    database: str, connection: asyncpg.Connection
) -> None:
    """What they have written has no values by which it could be decided."""
    await connection.execute(ORDERS)
    writer = await asyncpg.connect(database)
    await writer.execute("BEGIN; INSERT INTO orders VALUES (1, 7, 1)")
    with pytest.raises(asyncpg.LockNotAvailableError):
        await connection.execute(
            """SET lock_timeout = 100; SELECT brain.restrict('orders', '{"id": "sub"}')"""
        )
    await writer.execute("COMMIT")
    await writer.close()
    await connection.execute("""SELECT brain.restrict('orders', '{"id": "sub"}')""")


ALTERATIONS = {
    "another type": "ALTER TABLE orders ALTER customer_id TYPE text",
    "another type, as one transaction writes": (
        "BEGIN; ALTER TABLE orders ALTER customer_id TYPE text;"
        " INSERT INTO orders VALUES (9, '7', 1); COMMIT"
    ),
    "and the capture written again": (
        "ALTER TABLE orders ALTER customer_id TYPE text; SELECT brain.write_captures()"
    ),
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
async def test_rows_are_a_reset_while_a_column_of_a_rule_has_another_type(
    database: str, connection: asyncpg.Connection, alteration: str
) -> None:
    """Claims were compared with values of the former type."""
    await connection.execute(ORDERS)
    before = await connection.fetchval(NUMBER)

    events = await logged_events(
        database,
        connection,
        "INSERT INTO orders VALUES (1, 7, 9.90)",
        ALTERATIONS[alteration],
        "INSERT INTO orders VALUES (2, '7', 9.90)",
        "UPDATE orders SET total = 1 WHERE id = 1",
    )
    assert [event.operation for event in events if event.key_text in ("2", "9")] == []
    assert [event.operation for event in events][-2:] == [Operation.RESET, Operation.RESET]

    again = await logged_events(
        database,
        connection,
        "SELECT brain.watch('orders', 'orders', '{id,total}')",
        "INSERT INTO orders VALUES (3, '7', 9.90)",
    )
    operations = [event.operation for event in again if event.channel == "orders"]
    assert operations == [Operation.RESET, Operation.INSERT]
    assert await connection.fetchval(NUMBER) > before
