"""The commands that watch tables, as they are typed."""

from __future__ import annotations

import shlex
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from brain.cli.watches import shown_address
from tests.end_to_end.brain import brain
from tests.postgres import as_role, named, ordinary_role

ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric, secret text);
    CREATE VIEW open_orders AS SELECT * FROM orders WHERE status = 'open';
    CREATE SCHEMA app; CREATE TABLE app."Things" ("Id" int PRIMARY KEY);
"""


@pytest.fixture
async def url(core_database: str) -> dict[str, str]:
    connection = await asyncpg.connect(core_database)
    await connection.execute(ORDERS)
    await connection.close()
    return {"DATABASE_URL": core_database}


async def columns(url: dict[str, str]) -> list[str]:
    connection = await asyncpg.connect(url["DATABASE_URL"])
    found: list[str] = await connection.fetchval("SELECT columns FROM brain.watches")
    await connection.close()
    return found


@pytest.mark.parametrize(
    ("options", "watched"),
    [
        (["--all-columns"], ["id", "status", "total", "secret"]),
        (["--except", "secret"], ["id", "status", "total"]),
        (["--except", " secret , total"], ["id", "status"]),
        (["--columns", "id, status ,total "], ["id", "status", "total"]),
    ],
)
async def test_columns_are_listed_or_left_out(
    url: dict[str, str], options: list[str], watched: list[str]
) -> None:
    done = await brain("watch", "orders", *options, **url)

    parts = urlsplit(url["DATABASE_URL"])
    place = f"database {parts.path[1:]} at {parts.hostname}:{parts.port or 5432}"
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout == f"watching public.orders on the channel orders in {place}\n"
    assert await columns(url) == watched
    done = await brain("unwatch", "orders", **url)
    assert done.stdout == f"public.orders is no longer watched in {place}\n"


@pytest.mark.parametrize("name", ["orders", "public.orders", '"public"."orders"'])
async def test_the_watch_of_a_table_that_was_dropped_ends_by_its_name(
    url: dict[str, str], name: str
) -> None:
    await brain("watch", "orders", "--all-columns", **url)
    connection = await asyncpg.connect(url["DATABASE_URL"])
    await connection.execute("DROP TABLE orders CASCADE")
    other = await brain("unwatch", "invoices", **url)
    assert other.status == 2 and "there is no table invoices" in other.stderr
    assert await connection.fetchval("SELECT count(*) FROM brain.watched") == 1

    done = await brain("unwatch", name, **url)

    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("public.orders was dropped, and is no longer watched in database")
    assert await connection.fetchval("SELECT count(*) FROM brain.watched") == 0
    await connection.close()


async def test_the_watch_of_a_dropped_table_ends_though_another_one_has_its_name(
    url: dict[str, str],
) -> None:
    await brain("watch", "orders", "--all-columns", **url)
    connection = await asyncpg.connect(url["DATABASE_URL"])
    await connection.execute("DROP TABLE orders CASCADE; CREATE TABLE orders (id int PRIMARY KEY)")
    await connection.close()

    done = await brain("unwatch", "orders", **url)

    assert done.stdout.startswith("public.orders was dropped, and is no longer watched in database")
    again = await brain("unwatch", "orders", **url)
    assert again.status == 2 and "table public.orders is not watched" in again.stderr


async def test_the_place_is_the_one_that_was_connected_to(url: dict[str, str]) -> None:
    parts = urlsplit(url["DATABASE_URL"])
    port, name, at = parts.port or 5432, parts.path[1:], f"{parts.username}@"
    for netloc, query, place in (
        (at, f"host={parts.hostname}&port={port}", f"{parts.hostname}:{port}"),
        (f"{at}127.0.0.1:1,{parts.hostname}:{port}", "", f"{parts.hostname}:{port}"),
        (f"{at}localhost:{port}", "", f"localhost:{port}"),
    ):
        given = urlunsplit(parts._replace(netloc=netloc, query=query))
        done = await brain("watch", "orders", "--all-columns", DATABASE_URL=given)
        assert done.stdout.endswith(f" in database {name} at {place}\n"), done


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (("::1", 5433), "[::1]:5433"),
        (("db.socket.example.org", 5432), "db.socket.example.org:5432"),
        ("/run/postgresql/.s.PGSQL.5432", "the local socket /run/postgresql/.s.PGSQL.5432"),
    ],
)
def test_a_place_is_shown_as_in_a_url(address: str | tuple[str, int], shown: str) -> None:
    assert shown_address(address) == shown


async def test_the_default_channel_is_the_name_without_schema_and_quotes(
    url: dict[str, str],
) -> None:
    done = await brain("watch", 'app."Things"', "--columns", "Id", **url)

    assert done.stdout.startswith('watching app."Things" on the channel Things in database ')


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "exactly one of --columns, --all-columns and --except is needed"),
        (["--columns", "id", "--all-columns"], "exactly one of --columns, --all-columns and"),
        (["--except", "secret,nope"], "table public.orders has no column nope; it has id, status"),
        (["--columns", "id,nope"], "table public.orders has no column nope; it has id, status"),
        (["--columns", "id", "--row-bytes", "10"], "Invalid value for '--row-bytes': 10 is not in"),
        (
            ["--all-columns", "--column-bytes", "99999999999"],
            "Invalid value for '--column-bytes': 99999999999 is not in the range 8192<=x<=16777216",
        ),
        (["--columns", "id,t\udcff"], "Invalid value for '--columns': 'id,t?' is not UTF-8"),
        (
            ["--all-columns", "--channel", "\udcff"],
            "Invalid value for '--channel': '?' is not UTF-8",
        ),
        (
            ["--all-columns", "--type", "insert=\udcff"],
            "Invalid value for '--type': 'insert=?' is not UTF-8",
        ),
    ],
)
async def test_a_wrong_list_of_columns_is_one_line(
    url: dict[str, str], arguments: list[str], line: str
) -> None:
    done = await brain("watch", "orders", *arguments, **url)

    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.startswith(f"brain: {line}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("nope", 'relation "nope" does not exist\n'),
        ("Orders2", 'relation "orders2" does not exist\n'),
        ("things", 'relation "things" does not exist; there is app."Things"\n'),
        ("app.Things", 'relation "app.things" does not exist; there is app."Things"\n'),
        ("open_orders", "public.open_orders cannot be watched: it is a view"),
        ("4711", "there is no table 4711"),
        ("", "Invalid value for 'TABLE': the name is empty"),
        (" ", "Invalid value for 'TABLE': the name is empty"),
        ("t\udcff", "'t?' is not UTF-8"),
    ],
)
async def test_a_table_that_is_not_there_is_named_with_those_that_may_be_meant(
    url: dict[str, str], table: str, line: str
) -> None:
    done = await brain("watch", table, "--all-columns", **url)

    assert (done.status, done.stdout) == (2, "")
    assert line in done.stderr and done.stderr.count("\n") == 1


async def test_the_options_of_a_watch_are_listed_where_they_are_set(url: dict[str, str]) -> None:
    async def listed(*options: str) -> str:
        assert (
            await brain("watch", "orders", "--columns", "id,status", *options, **url)
        ).status == 0
        return (await brain("watches", **url)).stdout

    assert await listed() == "orders  public.orders (id, status) immediate\n"
    assert (
        await listed(
            "--replicated",
            "--timing",
            "deferred",
            "--type",
            "insert=placed",
            "--type",
            "delete=gone",
        )
        == "orders  public.orders (id, status) deferred replicated delete=gone insert=placed\n"
    )
    assert (
        await listed("--replicated") == "orders  public.orders (id, status) immediate replicated\n"
    )


async def test_warnings_are_printed(url: dict[str, str]) -> None:
    await brain("watch", "orders", "--all-columns", **url)
    again = await brain("watch", "orders", "--except", "secret", **url)
    await brain("unwatch", "orders", **url)
    other = await brain("watch", 'app."Things"', "--all-columns", "--channel", "orders", **url)

    assert (again.status, other.status) == (0, 0)
    assert again.stderr == (
        "brain: warning: table public.orders was watched with other columns: no longer sent:"
        " secret\n"
    )
    assert other.stderr == (
        "brain: warning: the channel orders was that of table public.orders: those who subscribe to"
        " it get"
        ' rows of app."Things" from now on\n'
    )


async def test_a_channel_of_another_table_is_refused_with_the_way_out(url: dict[str, str]) -> None:
    await brain("watch", "orders", "--all-columns", **url)
    done = await brain("watch", 'app."Things"', "--all-columns", "--channel", "orders", **url)

    assert done.stderr == (
        "brain: the channel orders is that of table public.orders: choose another channel, or end"
        " that watch: brain unwatch public.orders\n"
    )


async def test_the_printed_way_out_of_a_problem_can_be_typed(url: dict[str, str]) -> None:
    await brain(
        "watch", 'app."Things"', "--all-columns", "--channel", "it's", "--type", "insert=a thing",
        "--timing", "deferred", "--column-bytes", "9000", **url,
    )  # fmt: skip
    connection = await asyncpg.connect(url["DATABASE_URL"])
    await connection.execute('ALTER TABLE app."Things" RENAME "Id" TO "The Id"')
    listed = (await brain("watches", **url)).stdout.splitlines()
    problem = listed[1].strip()
    assert problem.startswith('app."Things" has changed: column "Id" is called "The Id"')
    before = await connection.fetchrow("SELECT * FROM brain.watched")

    command = shlex.split(problem.partition("brain ")[2])
    assert (await brain(*command, **url)).status == 0

    after = await connection.fetchrow("SELECT * FROM brain.watched")
    await connection.close()
    assert before is not None and after is not None
    changed = {name for name in before.keys() if before[name] != after[name]}
    assert changed == {"columns", "key_columns", "attributes"}
    assert len((await brain("watches", **url)).stdout.splitlines()) == 1


async def test_what_is_wrong_with_a_database_is_said(postgres: str, core_database: str) -> None:
    owner = urlsplit(postgres).username or ""
    async with ordinary_role(postgres) as (role, _):
        for url, line in (
            ("postgresql://me@127.0.0.1:1/shop", "nothing listens there"),
            (as_role(named(postgres, "nosuch"), owner), "there is no such database: postgresql://"),
            (as_role(core_database, "nobody_of_that_name"), "was refused"),
            (as_role(core_database, role), "lacks rights: permission denied for schema brain"),
        ):
            done = await brain("watch", "orders", "--all-columns", DATABASE_URL=url)
            assert (done.status, done.stdout, done.stderr.count("\n")) == (1, "", 1)
            assert line in done.stderr


async def test_row_rules_are_given_by_column_and_claim(url: dict[str, str]) -> None:
    done = await brain("watch", "orders", "--all-columns", "--rule", "status=state", **url)
    assert (done.status, done.stderr) == (0, "")
    assert await rules(url) == ('{"status": "state"}', "{}")
    done = await brain("watches", **url)
    assert done.stdout.endswith(" immediate rule status=state\n")

    more = ["--exempt", "role=admin", "--exempt", "role=support", "--exempt", "staff=true"]
    done = await brain("restrict", "orders", "id=order", "status=state", *more, **url)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "clients get the rows of public.orders in which id is the claim order and status is the"
        " claim state, in database "
    )
    assert await rules(url) == (
        '{"id": "order", "status": "state"}',
        '{"role": ["admin", "support"], "staff": ["true"]}',
    )
    done = await brain("watch", "orders", "--columns", "id", **url)
    assert (await rules(url))[0] == '{"id": "order", "status": "state"}'

    done = await brain("restrict", "orders", "--none", **url)
    assert done.stdout.startswith("clients get all rows of public.orders, in database ")
    assert await rules(url) == ("{}", "{}")


async def rules(url: dict[str, str]) -> tuple[str, str]:
    connection = await asyncpg.connect(url["DATABASE_URL"])
    (found,) = await connection.fetch("SELECT rules, exempt FROM brain.watches")
    await connection.close()
    return found["rules"], found["exempt"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["orders"], "rules are needed, like customer_id=sub"),
        (["orders", "--none", "id=sub"], "rules are needed, like customer_id=sub"),
        (["orders", "id"], "a rule is given as column=claim"),
        (["orders", "id="], "a rule is given as column=claim"),
        (["orders", "id=sub", "--exempt", "admin"], "an exemption is given as claim=value"),
        (["orders", "id=sub"], "table public.orders is not watched"),
        (["nothing", "id=sub"], "there is no table nothing"),
    ],
)
async def test_what_is_no_row_rule_is_one_line(
    url: dict[str, str], arguments: list[str], why: str
) -> None:
    done = await brain("restrict", *arguments, **url)

    assert done.status != 0
    assert done.stderr.startswith("brain: ") and done.stderr.count("\n") == 1
    assert why in done.stderr


async def test_a_table_with_row_security_needs_rules_or_a_word(url: dict[str, str]) -> None:
    connection = await asyncpg.connect(url["DATABASE_URL"])
    await connection.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    await connection.close()

    done = await brain("watch", "orders", "--all-columns", **url)
    assert "has row-level security" in done.stderr and "brain: " in done.stderr
    done = await brain("watch", "orders", "--all-columns", "--row-security", "ignored", **url)
    assert done.status == 0
