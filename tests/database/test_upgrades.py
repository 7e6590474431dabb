"""An upgraded database equals a fresh one; the comparison detects each kind of difference."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from brain.database.migrations import migrate
from brain.database.schema_files import Schema, core_schema
from tests.database.catalog import KINDS, catalog, differences
from tests.database.log_reading import events_after, keys, reading
from tests.postgres import new_database
from tests.schemas import every_schema
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions

# The schema of an older release, as edits of today's files: (text of today, older text), by file.
OLDER = {
    "02_log.sql": [
        ("    recipient      text,\n", "    recipient      varchar(50),\n"),
        (
            "clock_timestamp()\n);\nINSERT INTO brain.current",
            "now()\n);\nINSERT INTO brain.current",
        ),
        ("    'I(nsert)", "    'i(nsert)"),
    ],
    "04_append_to_log.sql": [("key, data, old%s)", "key, data, old%s) /* then */")],
    "06_capture_trigger.sql": [("IF %15$s THEN\n", "IF true OR %15$s THEN\n")],
    "10_watch_problems.sql": [
        ("WHEN c.oid IS NULL THEN ARRAY", "WHEN w.relation IS NULL THEN ARRAY")
    ],
    "12_presence.sql": [
        ("        CREATE INDEX node_users", "        NULL; -- CREATE INDEX node_users"),
        ("'busy', 'offline'))", "'busy'))"),
    ],
    "13_revocations.sql": [
        ("timestamptz NOT NULL,\n    reason     text", "timestamptz NOT NULL"),
        ("user_id text, reason text DEFAULT NULL", "user_id text"),
        ("clock_timestamp(), reason)", "clock_timestamp())"),
        (", reason = excluded.reason", ""),
    ],
    "14_feeds.sql": [
        ("public, pg_temp AS 'BEGIN EXECUTE", "public AS 'BEGIN EXECUTE"),
    ],
}
# For the differences that remain when the files are applied again.
UPGRADES = {
    "0001_columns": """
        ALTER TABLE brain.events ALTER COLUMN recipient TYPE text;
        ALTER TABLE brain.current_block ALTER COLUMN since SET DEFAULT clock_timestamp();
        ALTER TABLE brain.presence DROP CONSTRAINT presence_status_check,
            ADD CHECK (status IN ('online', 'away', 'busy', 'offline'));
    """,
    "0002_reasons": """
        ALTER TABLE brain.revocations ADD COLUMN reason text;
        DROP FUNCTION brain.revoke(text);
    """,
}
# A difference of each kind.
HARM = {
    "function body": "CREATE OR REPLACE FUNCTION brain.node_is_parked() RETURNS text"
    " LANGUAGE sql IMMUTABLE AS 'SELECT NULL'",
    "function setting": "ALTER FUNCTION brain.tick RESET search_path",
    "function security": "ALTER FUNCTION brain.publish SECURITY INVOKER",
    "function volatility": "ALTER FUNCTION brain.tick STABLE",
    "function missing": "DROP FUNCTION brain.subscribers",
    "function more": "CREATE FUNCTION brain.more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "relation storage": "ALTER TABLE brain.nodes SET (fillfactor = 60)",
    "relation persistence": "ALTER TABLE brain.nodes SET LOGGED",
    "relation parent": "ALTER TABLE brain.events_3 NO INHERIT brain.events",
    "column missing": "ALTER TABLE brain.revocations DROP COLUMN reason",
    "column type": "ALTER TABLE brain.revocations ALTER COLUMN reason TYPE varchar",
    "column null": "ALTER TABLE brain.watched ALTER COLUMN types DROP NOT NULL",
    "default": "ALTER TABLE brain.watched ALTER COLUMN is_deferred SET DEFAULT true",
    "index missing": "DROP INDEX brain.node_users_user_id_idx",
    "index columns": "DROP INDEX brain.node_users_user_id_idx;"
    " CREATE INDEX node_users_user_id_idx ON brain.node_users (user_id, node)",
    "constraint": "ALTER TABLE brain.presence DROP CONSTRAINT presence_status_check",
    "trigger missing": 'DROP TRIGGER "!brain_2_truncate_1" ON tasks',
    "trigger disabled": 'ALTER TABLE tasks DISABLE TRIGGER "!brain_1_row_1"',
    "view": """CREATE OR REPLACE VIEW brain.watches AS
        SELECT relation, channel, key_columns, columns, types, 'immediate' AS timing,
               is_replicated AS replicated, rules, exempt, row_security, '{}'::text[] AS problems
          FROM brain.watched""",
    "sequence": "ALTER SEQUENCE brain.event_id CACHE 32",
    "owner of a function": "ALTER FUNCTION brain.publish OWNER TO CURRENT_USER",
    "owner of a table": "ALTER TABLE brain.ticks OWNER TO CURRENT_USER",
    "owner of the schema": "ALTER SCHEMA brain OWNER TO CURRENT_USER",
    "right on a function": "GRANT EXECUTE ON FUNCTION brain.publish TO PUBLIC",
    "right on a table": "GRANT SELECT ON brain.events TO PUBLIC",
    "right on a type": "GRANT USAGE ON TYPE brain.watched TO PUBLIC",
    "right on the schema": "GRANT USAGE ON SCHEMA brain TO PUBLIC",
    "right by default": "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    "comment missing": "COMMENT ON COLUMN brain.events.operation IS NULL",
    "comment more": "COMMENT ON TABLE brain.events IS 'the log'",
    "feed": "SELECT brain.drop_feed('routes')",
    "watch": "SELECT brain.watch('tasks', 'tasks', '{id}')",
}


def older(folder: Path) -> Schema:
    """Return the core's schema as an older release had it."""
    (folder / "schema").mkdir()
    for script in core_schema().current().scripts:
        sql = script.sql
        for today, then in OLDER.get(script.name, []):
            assert sql.count(today) == 1, today
            sql = sql.replace(today, then)
        (folder / "schema" / script.name).write_text(sql)
    return Schema("brain", folder)


def newer(folder: Path) -> Schema:
    """Return the schema of today with the upgrades from the older release."""
    for script in core_schema().current().scripts:
        (folder / "schema" / script.name).write_text(script.sql)
    (folder / "upgrades").mkdir()
    for name, sql in UPGRADES.items():
        (folder / "upgrades" / f"{name}.sql").write_text(sql)
    return Schema("brain", folder)


async def catalog_of(url: str) -> dict[tuple[str, str], str]:
    connection = await asyncpg.connect(url)
    try:
        return await catalog(connection)
    finally:
        await connection.close()


async def test_an_upgrade_gives_the_same_database_as_a_fresh_install(
    postgres: str, database: str, tmp_path: Path
) -> None:
    _, *systems = every_schema()
    async with new_database(postgres) as url:
        await migrate(url, [older(tmp_path), *systems])
        before = await catalog_of(url)
        connection = await asyncpg.connect(url)
        await insert(connection, "before")
        await migrate(url, [newer(tmp_path), *systems])
        await insert(connection, "after")
        await connection.close()
        upgraded = await catalog_of(url)

    today = await catalog_of(database)
    assert differences(upgraded, today) == set()
    # The older release differed in objects that an upgrade changes and that the files replace.
    assert {kind for kind, _ in differences(before, today)} == {
        "column",
        "comment",
        "constraint",
        "default",
        "function",
        "index",
        "owner",
        "relation",
        "right",
        "view",
    }


async def test_what_was_logged_before_an_upgrade_is_read_after_it(
    postgres: str, tmp_path: Path
) -> None:
    _, *systems = every_schema()
    async with new_database(postgres) as url:
        await migrate(url, [older(tmp_path), *systems])
        async with reading(url) as log:
            start = await log.tick()
        connection = await asyncpg.connect(url)
        await insert(connection, "before")
        await migrate(url, [newer(tmp_path), *systems])
        await insert(connection, "after")
        await connection.close()

        async with reading(url) as log:
            events = await events_after(log, start)

    assert keys(events) == [["before"], ["after"]]


async def test_applying_everything_again_changes_nothing(database: str) -> None:
    fresh = await catalog_of(database)
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE brain.schema_versions SET sha256 = ''")
    rows = [await contents(connection)]

    applied = await migrate(database, every_schema())

    rows.append(await contents(connection))
    await connection.close()
    assert len(applied) == len(every_schema())
    assert differences(fresh, await catalog_of(database)) == set()
    assert rows[0] == rows[1]


async def contents(connection: asyncpg.Connection) -> list[object]:
    """Return the rows that the schemas insert, and the events, which they must not insert."""
    tables = [
        *("ticks", "origin", "current_block", "watched", "feeds", "events"),
        *("system_tables", "system_feeds"),
    ]
    return [await connection.fetch(f"SELECT * FROM brain.{table} ORDER BY 1") for table in tables]


@pytest.mark.one_version
@pytest.mark.parametrize("harm", HARM)
async def test_a_difference_shows(database: str, harm: str) -> None:
    fresh = await catalog_of(database)
    connection = await asyncpg.connect(database)
    await connection.execute(HARM[harm])
    await connection.close()

    kinds = {kind for kind, _ in differences(fresh, await catalog_of(database))}

    assert harm.split()[0] in kinds


@pytest.mark.one_version
def test_a_difference_of_every_kind_is_tried() -> None:
    assert {harm.split()[0] for harm in HARM} == set(KINDS)
