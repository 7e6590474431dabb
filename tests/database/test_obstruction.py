"""
What others lock, define and set in the database holds up nobody else.

Mallory owns tables that are watched, and may publish: the role has USAGE on schema brain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from brain.database.connection import opened_pool
from brain.database.migrations import migrate
from brain.database.schema_files import core_schema
from brain.database.snapshot import SnapshotReader
from brain.database.table_access import TableAccess
from brain.errors import LogUnavailable
from tests.database.changes import logged_events
from tests.database.log_reading import parsed
from tests.database.servers import binaries_of, new_server
from tests.database.stranger import PUBLISH
from tests.postgres import as_role, first_on_all_versions, ordinary_role

pytestmark = pytest.mark.postgres_versions

TABLES = """
    CREATE TABLE public.mine (id int PRIMARY KEY, note text);
    CREATE TABLE public.parted (id int, kind int, PRIMARY KEY (id, kind)) PARTITION BY LIST (id);
    CREATE TABLE public.part PARTITION OF public.parted FOR VALUES IN (1, 2)
        PARTITION BY LIST (kind);
    CREATE TABLE public.leaf PARTITION OF public.part FOR VALUES IN (1);
    CREATE TABLE public.others (id int PRIMARY KEY);
    CREATE TABLE public.texts (id text PRIMARY KEY);
    INSERT INTO public.others VALUES (1);
    ALTER TABLE public.mine OWNER TO {role};
    ALTER TABLE public.parted OWNER TO {role};
    ALTER TABLE public.part OWNER TO {role};
    ALTER TABLE public.leaf OWNER TO {role};
    GRANT CREATE ON SCHEMA public TO {role};
    GRANT INSERT ON public.texts TO {role};
    SELECT brain.watch('mine', 'mine', '{{id,note}}', row_security => 'ignored'),
           brain.watch('parted', 'parted', '{{id}}'), brain.watch('others', 'others', '{{id}}'),
           brain.watch('texts', 'texts', '{{id}}');
"""


class Mallory:
    def __init__(
        self, role: str, url: str, session: asyncpg.Connection, admin: asyncpg.Connection
    ) -> None:
        self.role = role
        self.url = url
        self.session = session
        self.admin = admin
        self.warnings: list[str] = []
        """Those that the administrator got."""
        admin.add_log_listener(lambda _, message: self.warnings.append(message.message))


@pytest.fixture
async def mallory(postgres: str, database: str) -> AsyncIterator[Mallory]:
    async with ordinary_role(postgres) as (role, _):
        admin = await asyncpg.connect(database)
        await admin.execute(TABLES.format(role=role) + PUBLISH.format(role=role))
        session = await asyncpg.connect(as_role(database, role))
        try:
            yield Mallory(role, database, session, admin)
        finally:
            await session.close()
            await admin.close()


@asynccontextmanager
async def holding(session: asyncpg.Connection, statement: str) -> AsyncIterator[None]:
    transaction = session.transaction()
    await transaction.start()
    try:
        await session.execute(statement)
        yield
    finally:
        await transaction.rollback()


LOCKS = ["parted", "ONLY part", "ONLY leaf", "mine"]
ROW_SECURITY = """
    ALTER TABLE mine ENABLE ROW LEVEL SECURITY;
    CREATE POLICY "!brain_reader" ON mine FOR SELECT TO brain_reader USING (true);
"""
# What nodes and operators call, and what is to be had of other tables meanwhile.
CALLS = [
    "SELECT * FROM brain.watches",
    "SELECT * FROM brain.system_problems",
    "SELECT * FROM brain.watched_columns()",
    "SELECT * FROM brain.filter_types()",
    "SELECT brain.write_captures()",
    "SELECT * FROM brain.row_access('{mine,parted}', '{}')",
    "SELECT brain.report_problem('mine', 'a'), brain.report_problem('parted', 'a')",
    "SELECT brain.watch('others', 'others', '{id}')",
    "SELECT brain.restrict('others', '{\"id\": \"sub\"}')",
    "SELECT brain.unwatch('others')",
]


@pytest.mark.parametrize("table", first_on_all_versions(LOCKS))
async def test_a_locked_table_holds_up_its_own_channel_alone(mallory: Mallory, table: str) -> None:
    await mallory.session.execute(ROW_SECURITY)
    await mallory.admin.execute("SET lock_timeout = '2s'")

    async with holding(mallory.session, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
        async with opened_pool(mallory.url) as pool:
            reader = SnapshotReader(TableAccess(2**20, table_seconds=2.0))
            snapshot = await reader.read(pool, frozenset({"others"}))
            with pytest.raises(LogUnavailable):
                await reader.read(pool, frozenset({"mine" if table == "mine" else "parted"}))
        for call in CALLS:
            await mallory.admin.execute(call)

    assert [parsed(row) for row in snapshot.tables["others"]] == [{"id": 1}]


async def test_the_state_of_all_watches_is_read_without_a_lock_on_a_table(mallory: Mallory) -> None:
    await mallory.session.execute(ROW_SECURITY)

    async with mallory.admin.transaction():
        await mallory.admin.fetch("SELECT * FROM brain.watches")
        await mallory.admin.fetch(
            "SELECT brain.limits(w), brain.kind_problem(w.relation),"
            " brain.row_triggers(w.relation) FROM brain.watched w"
        )
        rows = await mallory.admin.fetch(
            """
            SELECT l.relation::regclass::text FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
             WHERE l.pid = pg_backend_pid() AND c.relnamespace = 'public'::regnamespace
            """
        )

    assert rows == []


POLICIES = ["true", "false", "NULL", "NOT false", "true AND true", "id = id"]


@pytest.mark.parametrize("condition", POLICIES)
async def test_the_policy_of_the_reader_is_known_by_its_condition(
    mallory: Mallory, condition: str
) -> None:
    await mallory.session.execute(ROW_SECURITY.replace("(true)", f"({condition})"))

    shows_all = await mallory.admin.fetchval("SELECT brain.has_reader_policy('mine')")

    assert shows_all is (condition == "true")


async def test_the_partitions_of_a_table_are_those_that_postgresql_names(mallory: Mallory) -> None:
    await mallory.session.execute(
        "CREATE TABLE heir () INHERITS (mine); CREATE TABLE gone (LIKE leaf);"
        "ALTER TABLE part ATTACH PARTITION gone FOR VALUES IN (2);"
        "ALTER TABLE part DETACH PARTITION gone"
    )
    for table in ("parted", "part", "leaf", "mine", "gone"):
        row = await mallory.admin.fetchrow(
            """
            SELECT ARRAY(SELECT t::regclass::text FROM brain.partition_tree($1::text::regclass) t
                          ORDER BY 1) AS found,
                   ARRAY(SELECT relid::regclass::text FROM pg_partition_tree($1::text::regclass)
                          ORDER BY 1) AS named
            """,
            table,
        )
        assert row is not None
        assert row["found"] == (row["named"] or [table])
    assert await mallory.admin.fetchval(
        "SELECT array_agg(t::regclass::text) FROM brain.partition_tree('mine') t"
    ) == ["mine"]


# The name of a type of 2^14 fields, and that of one 600 deep; the types that they consist of.
TYPE_BOMBS = {
    "wide": ("wide14", "CREATE TYPE wide{} AS (a wide{}, b wide{})", 14),
    "wide in arrays": ("wide14[]", "CREATE TYPE wide{} AS (a wide{}[], b wide{})", 14),
    "wide in domains": (
        "held14",
        "CREATE DOMAIN held{1} AS wide{1}; CREATE TYPE wide{0} AS (a held{1}, b held{1}[])",
        14,
    ),
    "deep": ("wide600", "CREATE TYPE wide{} AS (a wide{})", 600),
}


@pytest.mark.parametrize("bomb", first_on_all_versions(TYPE_BOMBS))
async def test_a_column_of_a_type_of_countless_fields_is_watched_as_text(
    mallory: Mallory, bomb: str
) -> None:
    name, definition, levels = TYPE_BOMBS[bomb]
    await mallory.session.execute(
        "CREATE TYPE wide0 AS (a int);"
        + "".join(
            definition.format(level, level - 1, level - 1) + ";" for level in range(1, levels + 1)
        )
        + ("CREATE DOMAIN held14 AS wide14;" if name == "held14" else "")
        + f"ALTER TABLE mine ALTER note TYPE {name} USING NULL"
    )
    await mallory.admin.execute("SET statement_timeout = '60s'")

    await mallory.admin.execute(
        "SELECT brain.write_captures(), brain.watch('mine', 'mine', '{id,note}')"
    )

    length = await mallory.admin.fetchval(
        "SELECT max(length(prosrc)) FROM pg_proc WHERE pronamespace = 'brain'::regnamespace"
    )
    assert length < 100_000
    assert any("too many fields (note " in warning for warning in mallory.warnings)
    value = "ARRAY[NULL]::wide14[]" if name.endswith("[]") else "NULL"
    (event,) = await logged_events(
        mallory.url, mallory.session, f"INSERT INTO mine VALUES (7, {value})"
    )
    assert parsed(event.data) == {"id": 7, "note": [None] if name.endswith("[]") else None}


NESTED = "".join(f"CREATE TYPE n{n} AS (a n{n - 1}, b text);" for n in range(1, 13))


async def test_a_value_of_too_many_levels_is_the_text_that_postgresql_prints(
    mallory: Mallory,
) -> None:
    await mallory.session.execute(
        "CREATE TYPE n0 AS (a int, b text);"
        + NESTED
        + "ALTER TABLE mine ADD deep n12, ADD flat n2;"
    )
    await mallory.admin.execute("SELECT brain.watch('mine', 'mine', '{id,deep,flat}')")
    value = "ROW(" * 13 + "NULL" + ", 'x')" * 13

    inserted, updated = await logged_events(
        mallory.url,
        mallory.session,
        f"INSERT INTO mine (id, deep, flat) VALUES (1, {value}, ROW(ROW(ROW(1, 'a'), NULL), 'c'))",
        "UPDATE mine SET deep = NULL",
    )

    assert parsed(inserted.data) == {
        "id": 1,
        "deep": await mallory.admin.fetchval(f"SELECT ({value})::n12::text"),
        "flat": {"a": {"a": {"a": 1, "b": "a"}, "b": None}, "b": "c"},
    }
    assert parsed(updated.data)["deep"] is None


async def test_a_watch_whose_function_cannot_be_generated_holds_up_no_other(
    mallory: Mallory,
) -> None:
    await mallory.admin.execute(
        """
        UPDATE brain.watched SET rules = '[]' WHERE channel = 'mine';
        SELECT brain.retire_capture(id) FROM brain.watched WHERE channel = 'texts';
        """
    )

    await mallory.admin.execute("SELECT brain.write_captures()")

    (warning,) = mallory.warnings
    assert warning.startswith("the trigger function of public.mine cannot be generated anew: ")
    assert await channels(mallory, "INSERT INTO texts VALUES ('a')") == ["texts"]


async def channels(mallory: Mallory, statement: str) -> list[str]:
    """Return the channels of the events that a statement of Mallory's logs."""
    events = await logged_events(mallory.url, mallory.session, statement)
    return [event.channel for event in events]


async def triggers(mallory: Mallory) -> set[str]:
    rows = await mallory.admin.fetch(
        """
        SELECT regexp_replace(tgname, '_[0-9]+$', '') AS name FROM pg_trigger
         WHERE tgrelid = 'mine'::regclass
        """
    )
    return {row["name"] for row in rows}


RENAME = """
    DO $$
    DECLARE
        name name;
    BEGIN
        FOR name IN SELECT tgname FROM pg_trigger
                     WHERE tgrelid = 'public.mine'::regclass AND tgname ~ '{0}' LOOP
            EXECUTE format('ALTER TRIGGER %I ON public.mine RENAME TO %I', name, 'kept' || name);
        END LOOP;
    END $$;
"""
RENAMED = ["!brain_1_row", "!brain_2_truncate", "!brain"]
AGAIN = "SELECT brain.watch('mine', 'mine', '{id,note}', row_security => 'ignored')"


@pytest.mark.parametrize("renamed", first_on_all_versions(RENAMED))
async def test_triggers_that_were_renamed_are_created_anew_by_the_next_watch(
    mallory: Mallory, renamed: str
) -> None:
    await mallory.session.execute(RENAME.format(renamed))
    (problem,) = await problems(mallory)
    assert problem.startswith('a trigger of Brain has another name on public.mine ("kept!brain_')

    await mallory.admin.execute(AGAIN)

    assert await triggers(mallory) == {"!brain_1_row", "!brain_2_truncate"}
    assert await problems(mallory) == []
    assert await channels(mallory, "INSERT INTO mine VALUES (1)") == ["mine"]
    assert await channels(mallory, "TRUNCATE mine") == ["mine"]


async def problems(mallory: Mallory) -> list[str]:
    found: list[str] = await mallory.admin.fetchval(
        "SELECT problems FROM brain.watches WHERE channel = 'mine'"
    )
    return found


@pytest.mark.parametrize("renamed", first_on_all_versions(RENAMED))
async def test_triggers_that_were_renamed_are_dropped_with_the_watch(
    mallory: Mallory, renamed: str
) -> None:
    await mallory.session.execute(RENAME.format(renamed))

    await mallory.admin.execute("SELECT brain.unwatch('mine')")

    assert await triggers(mallory) == set()
    assert await channels(mallory, "INSERT INTO mine VALUES (1)") == []


async def test_a_renamed_trigger_is_replaced_by_who_may_not_drop_it(mallory: Mallory) -> None:
    async with ordinary_role(mallory.url) as (role, _):
        await mallory.session.execute(RENAME.format("!brain") + f"GRANT TRIGGER ON mine TO {role}")
        await mallory.admin.execute(f"GRANT brain_owner, brain_reader TO {role}")
        other = await asyncpg.connect(as_role(mallory.url, role))
        await other.execute("""SELECT brain.restrict('mine', '{"note": "sub"}')""")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match='DROP TRIGGER "kept!brain_1'):
            await other.execute(AGAIN)
        await other.close()
        await mallory.admin.execute(f"REVOKE TRIGGER ON mine FROM {role}")

    assert await channels(mallory, "INSERT INTO mine VALUES (1)") == ["mine"]


async def test_a_trigger_on_another_table_does_nothing(mallory: Mallory) -> None:
    """The owner of a partitioned table may execute its trigger function, for new partitions."""
    watch = await mallory.admin.fetchval("SELECT id FROM brain.watched WHERE channel = 'parted'")
    await mallory.session.execute(
        f"""
        CREATE TABLE forger (id int, kind int);
        CREATE TRIGGER forged AFTER INSERT ON forger FOR EACH ROW
            EXECUTE FUNCTION brain.capture_{watch}();
        """
    )
    assert await channels(mallory, "INSERT INTO forger VALUES (1)") == []

    await mallory.admin.execute("ALTER TABLE parted OWNER TO brain_owner")
    await mallory.admin.execute("SELECT brain.watch('parted', 'parted', '{id}')")
    assert await channels(mallory, "INSERT INTO forger VALUES (2)") == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await mallory.session.execute(
            f"CREATE TRIGGER again AFTER INSERT ON forger FOR EACH ROW"
            f" EXECUTE FUNCTION brain.capture_{watch}()"
        )

    await mallory.admin.execute("SELECT brain.unwatch('parted')")
    await mallory.admin.execute("SELECT brain.watch('others', 'parted', '{id}')")
    assert await channels(mallory, "INSERT INTO forger VALUES (3)") == []


async def test_a_function_that_others_depend_on_holds_up_no_watch(mallory: Mallory) -> None:
    watch = await mallory.admin.fetchval("SELECT id FROM brain.watched WHERE channel = 'mine'")
    await mallory.session.execute(
        f"CREATE VIEW block AS SELECT 1 AS a WHERE brain.capture_{watch}() IS NULL"
    )
    await mallory.session.execute("DROP TABLE mine")

    await mallory.admin.execute("SELECT brain.watch('others', 'others', '{id}')")

    assert mallory.warnings == [
        "a function that nothing needs any more stays: view public.block depends on function"
        f" brain.capture_{watch}()"
    ]
    await mallory.session.execute("DROP VIEW block")
    await mallory.admin.execute("SELECT brain.unwatch_dropped()")
    assert await mallory.admin.fetchval(f"SELECT to_regproc('brain.capture_{watch}')") is None


USES = [
    "CREATE TABLE uses (x brain.watched)",
    "CREATE TABLE uses (x brain.watched[])",
    "CREATE TABLE uses (x brain.watches)",
    "CREATE TABLE uses AS SELECT w FROM brain.watched w WITH NO DATA",
    "CREATE DOMAIN uses AS brain.events",
    "CREATE TYPE uses AS (x brain.feeds)",
    "CREATE FUNCTION uses(brain.watched) RETURNS int LANGUAGE sql AS 'SELECT 1'",
]


@pytest.mark.parametrize("use", first_on_all_versions(USES))
async def test_no_column_of_others_has_a_type_of_brain(mallory: Mallory, use: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for type"):
        await mallory.session.execute(use)


FORGERIES = [
    "E'\\n\"texts\"\\n'",
    "E'\\n\"texts\" 1'",
    "E'\\n\"texts\" x'",
    "E'\\n\"texts\" 99999999999999999999999999'",
    "E'\\n\"texts\" '",
]
LARGE = "INSERT INTO texts VALUES (repeat(chr(1), 2000) || {})"


@pytest.mark.parametrize("forged", first_on_all_versions(FORGERIES))
async def test_a_reset_that_is_claimed_and_not_in_the_log_is_appended(
    mallory: Mallory, forged: str
) -> None:
    await mallory.session.execute(f"SET brain.resets = {forged}")

    assert await channels(mallory, LARGE.format(1)) == ["texts"]
    assert await channels(
        mallory, f"BEGIN; {LARGE.format(2)}; {LARGE.format(3)}; {LARGE.format(4)}; COMMIT"
    ) == ["texts"]


@pytest.mark.parametrize("claimed", ["another event of the channel", "a reset of another one"])
async def test_an_event_that_is_not_the_reset_of_the_channel_is_none(
    mallory: Mallory, claimed: str
) -> None:
    """The id of an event of the same transaction, which a writer can guess."""
    channel, statement = {
        "another event of the channel": ("texts", "INSERT INTO texts VALUES ('a')"),
        "a reset of another one": ("others", "SELECT brain.append_reset('others', 'a')"),
    }[claimed]

    async with mallory.admin.transaction():
        await mallory.admin.execute(statement)
        id = await mallory.admin.fetchval("SELECT currval('brain.event_id')")
        await mallory.admin.execute(f"""SET LOCAL brain.resets = E'\\n"texts" {id}'""")
        await mallory.admin.execute(LARGE.format(1))
        logged = await mallory.admin.fetch(
            "SELECT channel FROM brain.events WHERE transaction_id = pg_current_xact_id()"
            " ORDER BY id"
        )

    assert [row["channel"] for row in logged] == [channel, "texts"]


async def test_a_trigger_of_others_cannot_claim_resets_in_the_session_of_a_backfill(
    mallory: Mallory,
) -> None:
    await mallory.session.execute(
        r"""
        CREATE FUNCTION hush() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM set_config('brain.resets', E'\n"others"\n"others" 1', false);
            RETURN NEW;
        END $$;
        CREATE TRIGGER hush BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION hush();
        """
    )
    await mallory.admin.execute("INSERT INTO mine VALUES (1)")

    events = await logged_events(
        mallory.url,
        mallory.admin,
        "BEGIN; SELECT brain.capture_off(); INSERT INTO others VALUES (8); COMMIT",
    )

    assert [(event.channel, event.operation.value) for event in events] == [("others", "R")]


async def test_a_prepared_transaction_with_the_lock_does_not_hold_up_a_migration(
    postgres: str,
) -> None:
    with new_server(await binaries_of(postgres), {"max_prepared_transactions": "1"}) as server:
        await migrate(server.url, [core_schema()])
        admin = await asyncpg.connect(server.url)
        await admin.execute("UPDATE brain.schema_versions SET sha256 = ''")
        await admin.execute(
            "BEGIN; SELECT pg_advisory_xact_lock(5221, 4); PREPARE TRANSACTION 'held'"
        )
        await admin.close()

        async with asyncio.timeout(60):
            applied = await migrate(server.url, [core_schema()])

    assert [str(step) for step in applied] == ["brain"]
