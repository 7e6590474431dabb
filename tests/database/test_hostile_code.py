"""
What others define runs with the rights of brain_reader, however Brain comes to run it.

Mallory owns a table that is watched, and may create functions, operators and views in public. Brain
connects as a superuser, the worst that an operator can do, or as a role with the least rights.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import asyncpg
import orjson
import pytest

from brain.database.budget import limits, undone
from brain.database.connection import explain, opened_pool
from brain.database.snapshot import SnapshotReader
from brain.database.table_access import TableAccess
from brain.errors import LogUnavailable
from brain.feeds.reader import FeedReader
from brain.message.matching import RowAccess
from brain.problems import Problems
from brain.systems.cecelia.task_queries import recent_tasks
from tests.database.changes import logged_events
from tests.database.log_reading import keys, parsed
from tests.postgres import as_role, ordinary_role

pytestmark = pytest.mark.postgres_versions

# Tries to get at the rights of the session, and says what it got; nothing in a session of Mallory.
EVIL = """
    CREATE FUNCTION public.evil(number int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RETURN session_user = '{role}' OR public.attempts(); END $$;
    CREATE FUNCTION public.attempts() RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
    DECLARE
        attempt text;
        gained text := current_user;
    BEGIN
        FOREACH attempt IN ARRAY ARRAY[
            'RESET ROLE', 'SET ROLE NONE', 'RESET SESSION AUTHORIZATION',
            'SET SESSION AUTHORIZATION DEFAULT', 'SET ROLE brain_owner',
            'SET transaction_read_only = off', 'ALTER FUNCTION pg_temp.brain_read SECURITY INVOKER',
            'COPY (SELECT 1) TO PROGRAM $q$true$q$', 'ALTER ROLE {role} SUPERUSER',
            'SELECT FROM brain.events', 'SELECT FROM public.secret', 'CREATE TEMP TABLE t (a int)',
            'SELECT FROM public.others WHERE hidden IS NULL']
        LOOP
            BEGIN
                EXECUTE attempt;
                gained := gained || ', ' || attempt;
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END LOOP;
        RAISE EXCEPTION 'it ran as %.', gained;
    END $$;
"""
# Goes on, and leaves behind what would run later in the same session.
PATIENT = """
    CREATE FUNCTION public.escalate() RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        ALTER ROLE {role} SUPERUSER;
        RETURN true;
    EXCEPTION WHEN OTHERS THEN
        RETURN false;
    END $$;
    CREATE FUNCTION public.of_text(varchar, text) RETURNS boolean LANGUAGE sql AS
        'SELECT public.escalate()';
    CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = text, FUNCTION = public.of_text);
    CREATE FUNCTION public.patient(number int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RETURN session_user = '{role}' OR public.leave_behind(); END $$;
    CREATE FUNCTION public.leave_behind() RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM set_config('search_path', 'public, pg_catalog', false);
        EXECUTE 'DEALLOCATE ALL';
        FOR n IN 1 .. 60 LOOP
            EXECUTE format('PREPARE %I AS SELECT public.escalate()',
                           '__asyncpg_stmt_' || to_hex(n) || '__');
        END LOOP;
        EXECUTE 'DECLARE kept CURSOR WITH HOLD FOR SELECT public.escalate()';
        RETURN true;
    END $$;
"""
TABLES = """
    CREATE TABLE public.mine (id int PRIMARY KEY, note text, kind varchar(9));
    INSERT INTO public.mine VALUES (1, 'a', 'b');
    CREATE TABLE public.secret (id int PRIMARY KEY);
    CREATE TABLE public.others (id int PRIMARY KEY, hidden text);
    REVOKE ALL ON public.secret, public.others FROM PUBLIC;
    ALTER TABLE public.mine OWNER TO {role};
    GRANT CREATE ON SCHEMA public TO {role};
    SELECT brain.watch('public.mine', 'mine', '{{id,note,kind}}', row_security => 'ignored');
    SELECT brain.watch('public.others', 'others', '{{id}}');
"""
IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = $1"


@dataclass
class Mallory:
    role: str
    url: str
    session: asyncpg.Connection
    admin: asyncpg.Connection

    async def is_superuser(self) -> bool:
        return bool(await self.admin.fetchval(IS_SUPERUSER, self.role))

    async def define(self, statements: str) -> None:
        await self.session.execute(statements.replace("{role}", self.role))


# As an administrator prepares a role, who need not be a superuser: docs/operating.md.
PREPARED = """
    GRANT brain_owner, brain_reader TO {role};
    GRANT SELECT ON public.tasks TO {role};
"""


SUPERUSER = pytest.param("a superuser", marks=pytest.mark.one_version)
"""The rights of other roles differ by the version of PostgreSQL."""


@pytest.fixture(params=[SUPERUSER, "a prepared role"])
async def brain_url(
    request: pytest.FixtureRequest, postgres: str, database: str
) -> AsyncIterator[str]:
    """The URL by which Brain connects."""
    if request.param == "a superuser":
        yield database
        return
    async with ordinary_role(postgres) as (role, _):
        admin = await asyncpg.connect(database)
        await admin.execute(PREPARED.format(role=role))
        await admin.close()
        yield as_role(database, role)


@pytest.fixture
async def mallory(postgres: str, database: str, brain_url: str) -> AsyncIterator[Mallory]:
    async with ordinary_role(postgres) as (role, _):
        admin = await asyncpg.connect(database)
        await admin.execute(TABLES.format(role=role))
        session = await asyncpg.connect(as_role(database, role))
        try:
            mallory = Mallory(role, brain_url, session, admin)
            await mallory.define(EVIL + PATIENT)
            yield mallory
        finally:
            await session.close()
            await admin.close()


AS_SUPERUSER = pytest.mark.parametrize("brain_url", ["a superuser"], indirect=True)
"""Of tests in which Brain does not connect: an administrator calls its functions."""


async def read_everything(mallory: Mallory) -> set[str]:
    """Read each table, each feed and the tasks twice, in the same sessions; return the problems."""
    problems = Problems()
    async with opened_pool(mallory.url) as pool:
        snapshots = SnapshotReader(TableAccess(2**20, problems=problems))
        feeds = FeedReader(pool, 2**20, 4, problems)
        for _ in range(2):
            for channels in ({"mine"}, {"mine", "others", "tasks"}, {"tasks"}):
                with suppress(LogUnavailable):
                    await snapshots.read(pool, frozenset(channels))
            for name, definition in (await feeds.definitions()).items():
                with suppress(LogUnavailable):
                    await feeds.state(name, "a" if definition.takes_argument else None)
            async with pool.acquire() as connection:
                await recent_tasks(connection, 10)
            await pool.execute("SELECT brain.publish('news', 'a', '{}')")
    return {problem.text for problem in problems.recent()}


def ran(problems: set[str]) -> set[str]:
    """Return as what the function ran, and what it gained, in all problems."""
    return {text.split("it ran as ")[1].split(".")[0] for text in problems if "it ran as" in text}


POLICY = """
    ALTER TABLE mine ENABLE ROW LEVEL SECURITY;
    CREATE POLICY "!brain_reader" ON mine FOR SELECT TO brain_reader USING (true);
    CREATE POLICY p ON mine AS RESTRICTIVE USING (evil(id));
"""
FEED = "SELECT brain.define_feed('evil', 'SELECT to_jsonb(count(*)) FROM {}', '{{mine}}')"
VEHICLES = {
    "a policy": (POLICY, None),
    "an index, when a query is planned": ("CREATE INDEX ON mine ((evil(1)))", None),
    "the condition of an index": ("CREATE INDEX ON mine (id) WHERE evil(1)", None),
    "a view that a feed reads": (
        "CREATE VIEW seen AS SELECT id FROM mine WHERE evil(id); GRANT SELECT ON seen TO PUBLIC",
        FEED.format("seen"),
    ),
    "a function that a feed calls": ("SELECT", FEED.format("mine WHERE evil(id)")),
}


@pytest.mark.parametrize("vehicle", VEHICLES)
async def test_what_others_define_runs_as_the_reader(mallory: Mallory, vehicle: str) -> None:
    definition, feed = VEHICLES[vehicle]
    await mallory.define(definition)
    if feed is not None:
        await mallory.admin.execute(feed)

    problems = await read_everything(mallory)

    assert ran(problems) == {"brain_reader"}
    assert not await mallory.is_superuser()


@pytest.mark.parametrize("vehicle", VEHICLES)
async def test_what_others_leave_behind_in_a_session_runs_nowhere(
    mallory: Mallory, vehicle: str
) -> None:
    definition, feed = VEHICLES[vehicle]
    await mallory.define(definition.replace("evil(", "patient("))
    if feed is not None:
        await mallory.admin.execute(feed.replace("evil(", "patient("))

    await read_everything(mallory)

    assert not await mallory.is_superuser()


# Each takes the place of PostgreSQL's own where the types of a call are nearer to its own.
OVERLOADS = """
    CREATE FUNCTION public.evil_state(jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS
        'SELECT $2 WHERE public.evil(1)';
    CREATE FUNCTION public.evil_state(json, json) RETURNS json LANGUAGE sql AS
        'SELECT $2 WHERE public.evil(1)';
    CREATE AGGREGATE public.jsonb_agg(jsonb) (SFUNC = public.evil_state, STYPE = jsonb);
    CREATE AGGREGATE public.json_agg(json) (SFUNC = public.evil_state, STYPE = json);
    CREATE FUNCTION public.format(text, text) RETURNS text LANGUAGE sql AS
        'SELECT $1 WHERE public.evil(1)';
    CREATE FUNCTION public.to_json(text) RETURNS json LANGUAGE sql AS
        'SELECT json ''1'' WHERE public.evil(1)';
    CREATE FUNCTION public.to_jsonb(bigint) RETURNS jsonb LANGUAGE sql AS
        'SELECT jsonb ''1'' WHERE public.evil(1)';
"""


async def test_overloads_in_public_take_the_place_of_nothing(mallory: Mallory) -> None:
    await mallory.admin.execute(
        "INSERT INTO tasks (id) VALUES ('a'); INSERT INTO workflows (id, name) VALUES ('a', 'b')"
    )
    await mallory.admin.execute(FEED.format("mine"))
    await mallory.define(OVERLOADS)

    assert await read_everything(mallory) == set()
    assert not await mallory.is_superuser()


@AS_SUPERUSER
async def test_the_reader_reads_what_is_listed_and_nothing_else(mallory: Mallory) -> None:
    async def readable() -> set[str]:
        rows = await mallory.admin.fetch(
            """
            SELECT a.attrelid::regclass || '.' || a.attname AS name
              FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             WHERE c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped
               AND (c.relnamespace = 'brain'::regnamespace
                    OR c.relname IN ('mine', 'others', 'secret'))
               AND has_column_privilege('brain_reader', c.oid, a.attnum, 'SELECT')
            """
        )
        return {row["name"] for row in rows}

    assert await readable() == {"mine.id", "mine.note", "mine.kind", "others.id"}
    await mallory.admin.execute("SELECT brain.watch('others', 'others', '{hidden}')")
    await mallory.admin.execute(FEED.format("secret"))
    assert {"others.hidden", "secret.id"} <= await readable()
    await mallory.admin.execute("SELECT brain.watch('others', 'others', '{id}')")
    await mallory.admin.execute("SELECT brain.drop_feed('evil'), brain.unwatch('mine')")
    assert await readable() == {"others.id"}


@AS_SUPERUSER
async def test_the_reader_owns_nothing_and_what_it_runs_changes_nothing(mallory: Mallory) -> None:
    owned = await mallory.admin.fetch(
        """
        SELECT pg_describe_object(classid, objid, objsubid) FROM pg_shdepend
         WHERE refclassid = 'pg_authid'::regclass AND refobjid = 'brain_reader'::regrole
           AND deptype = 'o'
           AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        """
    )
    assert owned == []
    role = await mallory.admin.fetchrow(
        "SELECT rolcanlogin, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = 'brain_reader'"
    )
    assert role is not None and list(role) == [False, False, False]
    await mallory.admin.execute("SELECT brain.open_reader()")
    await mallory.admin.execute("BEGIN; SELECT pg_temp.brain_read('SELECT ''a''')")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await mallory.admin.execute("CREATE TABLE public.written ()")
    await mallory.admin.execute("ROLLBACK")


@AS_SUPERUSER
async def test_a_function_of_that_name_that_is_not_the_readers_is_not_called(
    mallory: Mallory,
) -> None:
    await mallory.admin.execute(
        "CREATE FUNCTION pg_temp.brain_read(text, text, bigint) RETURNS SETOF text LANGUAGE sql"
        " RETURN 'forged'"
    )
    with pytest.raises(asyncpg.DuplicateFunctionError):
        await mallory.admin.execute("SELECT brain.open_reader()")


@AS_SUPERUSER
async def test_where_nobody_may_create_temporary_tables_the_reader_may(mallory: Mallory) -> None:
    database = await mallory.admin.fetchval("SELECT quote_ident(current_database())")
    await mallory.admin.execute(
        f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC, brain_reader"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError) as missing:
        await mallory.admin.execute("SELECT brain.open_reader()")
    await mallory.admin.execute(str(missing.value).partition(": ")[2])
    await mallory.admin.execute("SELECT brain.open_reader()")


HOSTILE_NAMES = [
    "$capture$;ALTER ROLE {role} SUPERUSER;--",
    "$body$;ALTER ROLE {role} SUPERUSER;--",
    "';ALTER ROLE {role} SUPERUSER;--",
    '";ALTER ROLE {role} SUPERUSER;--',
    "$$;ALTER ROLE {role} SUPERUSER;--",
    "\\';ALTER ROLE {role} SUPERUSER;--",
    "));ALTER ROLE {role} SUPERUSER;--",
    "$1 %s %1$s %%",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_a_name_is_a_name_and_nothing_else(mallory: Mallory, name: str) -> None:
    short = mallory.role[:12]
    await mallory.admin.execute(f"ALTER ROLE {mallory.role} RENAME TO {short}")
    name = name.replace("{role}", short)
    quoted = '"' + name.replace('"', '""') + '"'
    table = f"{quoted}.{quoted}"
    admin = mallory.admin
    try:
        await admin.execute(
            f"""
            SET check_function_bodies = off; SET standard_conforming_strings = off;
            CREATE SCHEMA {quoted};
            CREATE TYPE {table} AS ENUM ('a');
            CREATE TABLE {quoted}.{quoted[:-1]}s" ({quoted} {table} PRIMARY KEY);
            """
        )
        table = f'{quoted}.{quoted[:-1]}s"'
        types = orjson.dumps({"insert": name}).decode()
        await admin.execute(
            "SELECT brain.watch($1::text::regclass, $2, ARRAY[$2], types => $3::text::jsonb)",
            *(table, name, types),
        )
        await admin.execute(
            "SELECT brain.restrict($1::text::regclass, jsonb_build_object($2::text, $2::text))",
            *(table, name),
        )
        await admin.execute(f"INSERT INTO {table} VALUES ('a')")
        allowed = await admin.fetchval(
            "SELECT allowed FROM brain.row_access(ARRAY[$1], jsonb_build_object($1::text, 'a'))",
            name,
        )
        assert orjson.loads(allowed).keys() == {"", name}
        await admin.execute(
            "SELECT brain.define_feed('odd', $1, ARRAY[$2], row_security => 'ignored')",
            *(f"SELECT to_jsonb(count(*)) FROM {table}", name),
        )
        async with opened_pool(mallory.url) as pool:
            state = await FeedReader(pool, 1000, 4).state("odd", None)
            assert state is not None and state.text == "1"
            rows = {name: RowAccess(allowed)}
            snapshot = await SnapshotReader(TableAccess(2**20)).read(pool, frozenset({name}), rows)
        assert [orjson.loads(row) for row in snapshot.tables[name]] == [{name: "a"}]
        await admin.execute("SELECT brain.unwatch($1::text::regclass)", table)
        assert not await admin.fetchval(IS_SUPERUSER, short)
    finally:
        await admin.execute(f"ALTER ROLE {short} RENAME TO {mallory.role}")


# Casts of Mallory's types, and a column that becomes of such a type after it has been watched.
CASTS = """
    CREATE FUNCTION public.noted_{target}({type}) RETURNS {target} LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.notes VALUES ('{type} as {target}', current_user);
        RETURN '"evil"'::{target};
    END $$;
    CREATE CAST ({type} AS {target}) WITH FUNCTION public.noted_{target}({type}) AS IMPLICIT;
"""
TYPES = """
    CREATE TABLE public.notes (what text, role name);
    GRANT INSERT ON public.notes TO PUBLIC;
    CREATE TYPE public.mood AS ENUM ('good', 'bad');
    CREATE DOMAIN public.humour AS public.mood;
    CREATE TYPE public.moods AS RANGE (subtype = public.mood);
    CREATE TYPE public.person AS (name text, feels public.mood, felt public.mood[]);
    CREATE TABLE public.hers (
        id public.mood PRIMARY KEY, note text, a public.humour, b public.mood[], c public.person,
        d public.person[], e public.moods, f json, g public.humour[]);
"""
HERS = "SELECT brain.watch('hers', 'hers', '{id,note,a,b,c,d,e,f,g}')"
ROW = """
    'good', 'x', 'bad', '{{good,NULL}}', ROW('ann', 'good', '{bad}'),
    ARRAY[ROW('a"b', NULL, NULL), NULL, ROW(NULL, NULL, NULL)]::person[], '[good,bad]',
    '{"a": 1}', '{bad}'
"""
SHOWN = {
    "id": "good",
    "note": "x",
    "a": "bad",
    "b": [["good", None]],
    "c": {"name": "ann", "feels": "good", "felt": ["bad"]},
    "d": [
        {"name": 'a"b', "feels": None, "felt": None},
        None,
        {"name": None, "feels": None, "felt": None},
    ],
    "e": "[good,bad]",
    "f": {"a": 1},
    "g": ["bad"],
}
TYPE_NAMES = ("public.mood", "public.moods", "public.person")


@pytest.mark.parametrize("moment", ["before it is watched", "after it is watched"])
async def test_no_cast_of_others_is_called_to_show_a_value(mallory: Mallory, moment: str) -> None:
    casts = "".join(
        CASTS.format(type=type, target=target) for type in TYPE_NAMES for target in ("json", "text")
    )
    await mallory.define(TYPES)
    if moment == "before it is watched":
        await mallory.define(casts)
    await mallory.admin.execute(HERS)
    if moment == "after it is watched":
        await mallory.define(casts)

    events = await logged_events(
        mallory.url,
        mallory.session,
        f"INSERT INTO hers VALUES ({ROW})",
        "UPDATE hers SET note = repeat('x', 300000)",
        "UPDATE hers SET id = 'bad', note = 'y'",
    )
    async with opened_pool(mallory.url) as pool:
        (row,) = (await SnapshotReader(TableAccess(2**20)).read(pool, frozenset({"hers"}))).tables[
            "hers"
        ]

    assert [event.operation.value for event in events] == ["I", "U", "D", "U"]
    assert parsed(events[0].data) == SHOWN
    assert parsed(events[1].data) == {name: SHOWN[name] for name in SHOWN if name != "note"}
    assert keys(events) == [["good"], ["good"], ["good"], ["bad"]]
    assert parsed(events[3].data) == parsed(row) == SHOWN | {"id": "bad", "note": "y"}
    assert await mallory.admin.fetch("SELECT * FROM notes") == []


ALTERATIONS = [
    "ALTER TABLE hers ALTER note TYPE mood USING 'good'",
    "ALTER TABLE hers ALTER note TYPE moods USING '[good,good]'",
    "ALTER TABLE hers ALTER note TYPE humour[] USING '{good}'",
    "ALTER TABLE hers ALTER f TYPE mood USING 'good'",
    "ALTER TYPE person DROP ATTRIBUTE name; ALTER TYPE person ADD ATTRIBUTE name mood",
    "ALTER TYPE person ADD ATTRIBUTE more mood",
    "ALTER TABLE hers DROP note, ADD note mood DEFAULT 'good'",
]


@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest.mark.parametrize("session", ["the same session", "a new session"])
async def test_no_cast_is_called_for_a_column_that_is_of_another_type_by_now(
    mallory: Mallory, alteration: str, session: str
) -> None:
    await mallory.define(TYPES)
    await mallory.admin.execute(HERS)
    for type in TYPE_NAMES:
        for target in ("json", "text", "bytea", "jsonb"):
            await mallory.define(CASTS.format(type=type, target=target))
    writer = mallory.session
    await writer.execute(f"INSERT INTO hers VALUES ({ROW}); DELETE FROM hers")
    await mallory.define(f"INSERT INTO hers VALUES ({ROW}); {alteration}")
    if session == "a new session":
        writer = await asyncpg.connect(as_role(mallory.url, mallory.role))

    events = await logged_events(
        mallory.url,
        writer,
        "UPDATE hers SET a = 'good'",
        "DELETE FROM hers",
        "INSERT INTO hers (id) VALUES ('bad')",
    )
    with suppress(LogUnavailable):
        async with opened_pool(mallory.url) as pool:
            await SnapshotReader(TableAccess(2**20)).read(pool, frozenset({"hers"}))
    if writer is not mallory.session:
        await writer.close()

    assert [event.operation.value for event in events] == ["U", "D", "I"]
    assert keys(events) == [["good"], ["good"], ["bad"]]
    assert parsed(events[0].data)["a"] == "good"
    assert await mallory.admin.fetch("SELECT * FROM notes") == []


@AS_SUPERUSER
async def test_what_a_claim_says_for_an_enum_calls_no_cast_from_text(mallory: Mallory) -> None:
    await mallory.define(
        TYPES
        + """
        CREATE FUNCTION public.of_text(text) RETURNS mood LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.notes VALUES ('text as mood', current_user);
            RETURN 'bad';
        END $$;
        CREATE CAST (text AS mood) WITH FUNCTION public.of_text(text);
        """
    )
    await mallory.admin.execute(
        """SELECT brain.watch('hers', 'hers', '{id}'), brain.restrict('hers', '{"id": "feels"}')"""
    )

    rows = await mallory.admin.fetch(
        """
        SELECT allowed FROM unnest(ARRAY['{"feels": "good"}', '{"feels": ["bad", "odd"]}']) claims,
                            brain.row_access('{hers}', claims::jsonb)
        """
    )

    assert [orjson.loads(row["allowed"])["id"] for row in rows] == [["good"], ["bad"]]
    assert await mallory.admin.fetch("SELECT * FROM notes") == []


# Tells who ran it, unless that is its owner.
TRAP = """
    CREATE TABLE public.notes (role name);
    GRANT INSERT ON public.notes TO PUBLIC;
    CREATE FUNCTION public.noted() RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        IF current_user <> '{role}' THEN
            INSERT INTO public.notes VALUES (current_user);
        END IF;
        RETURN true;
    END $$;
    CREATE DOMAIN public.trap AS text CHECK (public.noted());
"""


@AS_SUPERUSER
async def test_no_condition_of_a_domain_runs_when_the_capture_is_planned(mallory: Mallory) -> None:
    """To plan an expression is to evaluate its constants, also in a branch that is not taken."""
    await mallory.define(
        TRAP
        + """
        CREATE TYPE public.box AS (v int);
        CREATE FUNCTION public.unbox(public.box) RETURNS text LANGUAGE sql IMMUTABLE AS
            $$ SELECT CASE WHEN '{{x}}'::public.trap[] IS NULL THEN 'a' ELSE 'b' END $$;
        CREATE CAST (public.box AS text) WITH FUNCTION public.unbox(public.box) AS IMPLICIT;
        ALTER TABLE mine ALTER note TYPE public.box USING ROW(1)::public.box
        """
    )
    writer = await asyncpg.connect(as_role(mallory.url, mallory.role))
    await writer.execute("INSERT INTO mine VALUES (2, ROW(1), 'q'); UPDATE mine SET kind = 'z'")
    await writer.execute("DELETE FROM mine WHERE id = 2")
    await writer.close()

    assert await mallory.admin.fetch("SELECT role FROM public.notes") == []


OTHER_TYPES = {
    "an enum without labels": "CREATE TYPE public.bad AS ENUM ();",
    "a composite type": "CREATE TYPE public.bad AS (v text);",
    "a range": "CREATE TYPE public.bad AS RANGE (subtype = int);",
    "an array of domains": "",
}


@pytest.mark.parametrize("kind", OTHER_TYPES)
async def test_a_claim_is_not_converted_to_what_a_column_has_become(
    mallory: Mallory, kind: str
) -> None:
    await mallory.admin.execute("""SELECT brain.restrict('mine', '{"kind": "sub"}')""")
    cast = """
        CREATE FUNCTION public.of_text(text) RETURNS bad LANGUAGE plpgsql AS
            $$ BEGIN PERFORM public.noted(); RETURN NULL; END $$;
        CREATE CAST (text AS bad) WITH FUNCTION public.of_text(text);
        ALTER TABLE mine ALTER kind TYPE bad USING NULL;
    """
    alter = "ALTER TABLE mine ALTER kind TYPE trap[] USING NULL;"
    await mallory.define(TRAP + OTHER_TYPES[kind] + (cast if OTHER_TYPES[kind] else alter))

    async with opened_pool(mallory.url) as pool:
        allowed = await pool.fetchval(
            "SELECT allowed FROM brain.row_access('{mine}', $1::text::jsonb)", '{"sub": "{a}"}'
        )

    assert orjson.loads(allowed)["kind"] == []
    assert await mallory.admin.fetch("SELECT role FROM public.notes") == []


@AS_SUPERUSER
async def test_what_parsing_the_query_of_a_feed_calls_leaves_nothing_behind(
    mallory: Mallory,
) -> None:
    await mallory.define(TRAP + "ALTER TABLE mine ADD tags trap[]")
    query = "SELECT to_jsonb(count(*)) FROM mine WHERE tags = '{a}'"
    await mallory.admin.execute("SELECT brain.define_feed('tagged', $1, '{mine}')", query)
    assert await mallory.admin.fetch("SELECT role FROM public.notes") == []


@AS_SUPERUSER
@pytest.mark.parametrize("ending", ["RETURN true", "RAISE query_canceled"])
async def test_what_parsing_the_query_of_a_feed_prepares_is_never_executed(
    mallory: Mallory, ending: str
) -> None:
    await mallory.define(
        TRAP
        + f"""
        ALTER TABLE mine ADD tags trap[];
        CREATE OR REPLACE FUNCTION public.noted() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            IF current_user = 'brain_reader' THEN
                EXECUTE 'DEALLOCATE ALL';
                EXECUTE 'PREPARE mine AS SELECT public.evil(1)';
                {ending};
            END IF;
            RETURN true;
        END $$
        """
    )
    await mallory.admin.execute("PREPARE mine AS SELECT 1")
    with pytest.raises(asyncpg.RaiseError, match="prepared statements"):
        await mallory.admin.execute(
            "SELECT brain.define_feed('other', "
            "$q$SELECT to_jsonb(count(*)) FROM mine WHERE tags = '{a}'$q$, '{mine}')"
        )
    with pytest.raises(asyncpg.InvalidSQLStatementNameError):
        await mallory.admin.execute("EXECUTE mine")


# Runs in each vehicle as `hostile()`, and nothing in other sessions.
RUN_BY_READER = """
    CREATE FUNCTION public.hostile() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        IF current_user = 'brain_reader' THEN
            {body}
        END IF;
        RETURN true;
    END $$;
"""
# Neither a timeout nor a cancellation ends it, and it does not look whether its client is there.
ENDLESS = """
    PERFORM set_config('transaction_timeout', '0', true)
      FROM pg_settings WHERE name = 'transaction_timeout';
    PERFORM set_config('client_connection_check_interval', '0', true);
    FOR i IN 1 .. 100 LOOP
        BEGIN
            PERFORM pg_sleep(1);
        EXCEPTION WHEN query_canceled THEN
            NULL;
        END;
    END LOOP;
"""
HOSTILE_POLICY = """
    ALTER TABLE {0} ENABLE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS "!brain_reader" ON {0};
    CREATE POLICY "!brain_reader" ON {0} FOR SELECT TO brain_reader USING (true);
    CREATE POLICY p ON {0} AS RESTRICTIVE USING (hostile());
"""
OF_READERS = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND state <> 'idle' AND wait_event = 'PgSleep'
"""
READ_SECONDS = 0.5


async def read_hostile(mallory: Mallory, pool: asyncpg.Pool, kind: str, problems: Problems) -> None:
    match kind:
        case "a snapshot":
            reader = SnapshotReader(TableAccess(2**20, READ_SECONDS, problems))
            await reader.read(pool, frozenset({"mine"}))
        case "a feed":
            await FeedReader(pool, 2**20, READ_SECONDS, problems).state("hostile", None)
        case "the tasks":
            async with pool.acquire() as connection:
                await recent_tasks(connection, 10, READ_SECONDS)


async def let_run(mallory: Mallory, body: str) -> None:
    """Have a function of Mallory's run when `mine`, the feed `hostile` or the tasks are read."""
    await mallory.define(RUN_BY_READER.replace("{body}", body))
    await mallory.define(HOSTILE_POLICY.format("mine"))
    await mallory.admin.execute("INSERT INTO tasks (id) VALUES ('a')")
    await mallory.admin.execute(HOSTILE_POLICY.format("tasks"))
    await mallory.admin.execute(FEED.format("mine").replace("evil", "hostile"))


READS = ["a snapshot", "a feed", "the tasks"]


@pytest.mark.one_version
@pytest.mark.parametrize("kind", READS)
async def test_what_cannot_be_cancelled_is_ended_and_leaves_no_session_behind(
    mallory: Mallory, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    await let_run(mallory, ENDLESS)
    # A snapshot needs a second one for a moment: so no session is free to end another.
    monkeypatch.setattr(
        "brain.database.connection.POOL_CONNECTIONS", 2 if kind == "a snapshot" else 1
    )
    async with opened_pool(mallory.url) as pool:
        for _ in range(2):
            with pytest.raises(LogUnavailable, match="it took longer than"):
                await read_hostile(mallory, pool, kind, Problems())
            assert await mallory.admin.fetchval(OF_READERS) == 0
        assert await pool.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("kind", READS)
async def test_what_cannot_be_cancelled_is_ended_when_its_client_has_gone(
    mallory: Mallory, kind: str
) -> None:
    await let_run(mallory, ENDLESS)
    async with opened_pool(mallory.url) as pool:
        task = asyncio.create_task(read_hostile(mallory, pool, kind, Problems()))
        while await mallory.admin.fetchval(OF_READERS) == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
    while await mallory.admin.fetchval(OF_READERS) > 0:
        await asyncio.sleep(0.01)


LOUD = {
    "an error": "RAISE EXCEPTION '%', repeat('x', 8 * 1024 * 1024);",
    "a hint": "RAISE EXCEPTION 'x' USING HINT = repeat('x', 8 * 1024 * 1024);",
    "an assertion": "ASSERT false, repeat('x', 8 * 1024 * 1024);",
    "a cancellation": """
        RAISE EXCEPTION '%', repeat('x', 8 * 1024 * 1024) USING ERRCODE = 'query_canceled';
    """,
}


@pytest.mark.parametrize("what", LOUD)
async def test_an_error_of_code_of_others_is_cut_where_it_is_raised(
    mallory: Mallory, what: str
) -> None:
    await let_run(mallory, LOUD[what])
    await mallory.admin.execute("SELECT brain.open_reader()")
    async with undone(mallory.admin):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await mallory.admin.fetch(
                "SELECT pg_temp.brain_read('SELECT id::text FROM public.mine')"
            )
        async with opened_pool(mallory.url) as pool:
            problems = Problems()
            with pytest.raises(LogUnavailable):
                await read_hostile(mallory, pool, "a snapshot", problems)

    assert str(raised.value) in ("x", "x" * 300)
    assert raised.value.hint is None
    assert [problem.address for problem in problems.recent()] == ["snapshot mine"]


NOTICES = {
    "a large one": "RAISE NOTICE '%', repeat('x', 1024 * 1024);",
    "many small ones": "FOR i IN 1 .. 10000 LOOP RAISE NOTICE 'x'; END LOOP;",
}


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("what", NOTICES)
async def test_notices_of_code_of_others_fail_the_read_and_not_the_database(
    mallory: Mallory, kind: str, what: str
) -> None:
    await let_run(
        mallory, "PERFORM set_config('client_min_messages', 'notice', true);" + NOTICES[what]
    )
    problems = Problems()
    async with opened_pool(mallory.url) as pool:
        with pytest.raises(LogUnavailable, match="the query fails") as failed:
            await read_hostile(mallory, pool, kind, problems)
        assert await pool.fetchval("SELECT 1") == 1

    texts = [problem.text for problem in problems.recent()] or [explain(cause_of(failed.value))]
    assert all("it raises notices or an error of more than 64 KiB" in text for text in texts)


def cause_of(error: BaseException) -> BaseException:
    """Return what the failure of a query comes from."""
    failure = error.__cause__
    assert failure is not None and failure.__cause__ is not None
    return failure.__cause__


async def test_notices_of_honest_functions_fail_no_read(mallory: Mallory) -> None:
    await let_run(mallory, NOTICES["a large one"])
    async with opened_pool(mallory.url) as pool:
        for kind in READS:
            await read_hostile(mallory, pool, kind, Problems())


FORGED = ["57P01", "57P03", "08006", "08P01", "3D000", "28000", "53300", "25P03", "25P04", "00000"]


@pytest.mark.parametrize("kind", ["a snapshot", "a feed"])
async def test_code_of_others_cannot_make_the_database_seem_lost(
    mallory: Mallory, kind: str
) -> None:
    await mallory.define("CREATE TABLE code (code text); INSERT INTO code VALUES ('P0001')")
    await mallory.define("GRANT SELECT ON code TO PUBLIC")
    await let_run(mallory, "RAISE EXCEPTION 'lost' USING ERRCODE = (SELECT code FROM public.code);")
    async with opened_pool(mallory.url) as pool:
        for code in FORGED:
            await mallory.session.execute("UPDATE code SET code = $1", code)
            problems = Problems()
            with pytest.raises(LogUnavailable, match="cannot be read: the query fails"):
                await read_hostile(mallory, pool, kind, problems)
            (problem,) = problems.recent()
            assert problem.address in ("snapshot mine", "feed hostile")
            assert problem.text.endswith(" cannot be read: lost"), code


HONEST = {
    "SELECT (1 / 0)::text": asyncpg.DivisionByZeroError,
    "SELECT convert_from('\\x00', 'UTF8')": asyncpg.CharacterNotInRepertoireError,
    "SELECT a FROM public.nothing": asyncpg.UndefinedTableError,
    "SELECT nothing FROM public.mine": asyncpg.UndefinedColumnError,
    "SELECT id::text FROM public.secret": asyncpg.InsufficientPrivilegeError,
    "SELECT pg_sleep(10)::text": asyncpg.QueryCanceledError,
    "SELECT id::text FROM public.others": asyncpg.LockNotAvailableError,
    "SELECT repeat('x', 2000000000)": asyncpg.ProgramLimitExceededError,
    "SELECT set_config('work_mem', 'x', true)": asyncpg.InvalidParameterValueError,
}


@AS_SUPERUSER
@pytest.mark.parametrize("query", HONEST)
async def test_an_honest_error_of_a_query_keeps_its_kind(
    database: str, mallory: Mallory, query: str
) -> None:
    await mallory.admin.execute("SELECT brain.open_reader()")
    admin = await asyncpg.connect(database)
    await admin.execute("BEGIN; LOCK TABLE others")
    try:
        async with undone(mallory.admin):
            await mallory.admin.execute(limits(0.2))
            with pytest.raises(HONEST[query]):
                await mallory.admin.fetch("SELECT pg_temp.brain_read($1)", query)
    finally:
        await admin.close()


# The program that a superuser may run is a note here.
SHADOWS = """
    CREATE TABLE public.ran (role name);
    GRANT INSERT ON public.ran TO PUBLIC;
    CREATE FUNCTION public.run_as() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF current_user NOT IN ('{role}', 'brain_reader') THEN
            RAISE EXCEPTION 'it ran as %', current_user;
        END IF;
    END $$;
    CREATE FUNCTION public.pg_my_temp_schema() RETURNS oid LANGUAGE plpgsql AS
        $$ BEGIN PERFORM public.run_as(); RETURN pg_catalog.pg_my_temp_schema(); END $$;
    CREATE FUNCTION public.current_database() RETURNS name LANGUAGE plpgsql AS
        $$ BEGIN PERFORM public.run_as(); RETURN pg_catalog.current_database(); END $$;
    CREATE FUNCTION public.kept() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN PERFORM public.run_as(); RETURN 1; END $$;
    CREATE OR REPLACE FUNCTION public.hostile() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        IF current_user = 'brain_reader' THEN
            PERFORM set_config('search_path', 'public, pg_catalog', false);
            EXECUTE 'DECLARE kept CURSOR WITH HOLD FOR SELECT public.kept()';
        END IF;
        RETURN true;
    END $$;
    CREATE DOMAIN public.trapped AS text CHECK (public.hostile());
    ALTER TABLE mine ADD tags trapped[];
"""


@AS_SUPERUSER
async def test_the_search_path_that_code_sets_while_a_query_is_parsed_is_not_used(
    mallory: Mallory,
) -> None:
    await mallory.define(SHADOWS)
    await mallory.admin.execute(
        "SELECT brain.define_feed('tagged', "
        "$q$SELECT to_jsonb(count(*)) FROM mine WHERE tags = '{a}'$q$, '{mine}')"
    )
    assert await mallory.admin.fetchval("SELECT current_database()")


async def test_what_a_feed_leaves_behind_does_not_run_after_it_was_read_by_hand(
    mallory: Mallory,
) -> None:
    await mallory.define(SHADOWS)
    await mallory.admin.execute(FEED.format("mine WHERE hostile()"))
    admin = await asyncpg.connect(mallory.url)
    try:
        assert await admin.fetchval("SELECT brain.feed('evil')") is not None
        assert await admin.fetchval("SELECT current_database()")
        assert await admin.fetch("SELECT name FROM pg_cursors WHERE name = 'kept'") == []
    finally:
        await admin.close()


@AS_SUPERUSER
async def test_every_function_of_brain_has_a_search_path_of_its_own(mallory: Mallory) -> None:
    """But the text of one, and one in which all names are qualified."""
    names = await mallory.admin.fetch(
        """
        SELECT proname FROM pg_proc
         WHERE pronamespace = 'brain'::regnamespace AND proname <> ALL ('{evil,node_is_parked}')
           AND NOT EXISTS (SELECT FROM unnest(proconfig) c WHERE c LIKE 'search_path=pg_catalog, %')
        """
    )
    assert [name["proname"] for name in names] == ["touch_task"]


@AS_SUPERUSER
async def test_an_operator_of_others_does_not_run_when_a_task_is_written(mallory: Mallory) -> None:
    await mallory.define(
        """
        CREATE FUNCTION public.equal(double precision, integer) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'it ran as %', current_user; END $$;
        CREATE OPERATOR public.= (LEFTARG = double precision, RIGHTARG = integer,
                                  FUNCTION = public.equal)
        """
    )
    await mallory.admin.execute(
        """INSERT INTO public.tasks (id, payload) VALUES ('z', '{"current_step": 3}')"""
    )
