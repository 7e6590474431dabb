"""Databases in other encodings than UTF-8."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import asyncpg
import orjson
import pytest

import brain
from brain.database.connection import connected, is_lost_link, opened_pool
from brain.database.migrations import migrate
from brain.database.pages import PageReader
from brain.database.schema_files import core_schema
from brain.database.snapshot import SnapshotReader
from brain.database.table_access import TableAccess
from brain.errors import MessageRefused
from brain.feeds.reader import FeedReader
from brain.message.event import Operation
from brain.message.page import PageRequest
from brain.presence.cluster import Cluster
from brain.presence.tracker import ClientInfo, PresenceTracker
from brain.publishing.messages import publish
from tests.database.log_reading import parsed
from tests.database.test_sessions import events_of
from tests.postgres import named
from tests.schemas import every_schema

pytestmark = pytest.mark.postgres_versions

PATIENCE_SECONDS = 20.0

# A text of each encoding.
TEXTS = {
    "SQL_ASCII": "Zürich, 東京",
    "LATIN1": "Zürich",
    "WIN1252": "Zürich, 5 €",
    "EUC_JP": "東京",
    "UTF8": "Zürich, 東京, 5 €",
}
NO_UTF8 = "convert_from('\\x61e962', 'SQL_ASCII')"


@asynccontextmanager
async def database_in(server: str, encoding: str) -> AsyncIterator[str]:
    """Yield the URL of a migrated database with an encoding."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'"
            " LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        try:
            url = named(server, name)
            await migrate(url, every_schema())
            yield url
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture(scope="module")
async def without_encoding(postgres: str) -> AsyncIterator[str]:
    async with database_in(postgres, "SQL_ASCII") as url:
        yield url


def test_all_sql_that_is_sent_as_a_script_is_ascii() -> None:
    scripts = [
        *core_schema().folder.rglob("*.sql"),
        *Path(brain.__file__).parent.glob("systems/**/*.sql"),
    ]
    assert len(scripts) > 12
    assert [script for script in scripts if not script.read_bytes().isascii()] == []


@pytest.mark.parametrize("encoding", TEXTS)
async def test_a_database_may_have_any_encoding(postgres: str, encoding: str) -> None:
    text = TEXTS[encoding]
    async with (
        database_in(postgres, encoding) as url,
        events_of(url) as (source, events),
        opened_pool(url) as pool,
        connected(url) as application,
    ):
        await application.execute("INSERT INTO public.tasks (id, agent) VALUES ($1, 'a')", text)
        assert (await events.get()).key_text == text
        await publish(text, text, {"text": text}, recipient=text, connection=application)
        message = await events.get()
        assert (message.channel, message.type, message.recipient) == (text, text, text)
        snapshot = await SnapshotReader(TableAccess(10_000)).read(pool, frozenset({"tasks", text}))
        assert [parsed(row)["id"] for row in snapshot.tables["tasks"]] == [text]
        assert await FeedReader(pool, 10_000, PATIENCE_SECONDS).state("queue", None) is not None
        assert await pool.fetchval("SELECT $1::text[]", [text, "a"]) == [text, "a"]
        assert source.statistics().reconnections == 0


async def test_pages_go_on_after_a_key_that_clients_cannot_be_sent(postgres: str) -> None:
    keys = ("61", "61e962", "61ff", "62")
    async with (
        database_in(postgres, "SQL_ASCII") as url,
        opened_pool(url) as pool,
        connected(url) as application,
    ):
        for key in keys:
            await application.execute(
                f"INSERT INTO public.tasks (id) VALUES (convert_from('\\x{key}', 'SQL_ASCII'))"
            )
        reader = PageReader(TableAccess(100_000))
        request = PageRequest("tasks", limit=1)
        shown = []
        while True:
            page = await reader.read(pool, request)
            shown += [parsed(row)["id"] for _, row in page.rows]
            if page.end is None:
                break
            request = replace(request, after=page.end)

    assert shown == ["a", "a\ufffdb", "a\ufffd", "b"]


async def test_long_texts_arrive_whole_in_a_database_without_encoding(
    without_encoding: str,
) -> None:
    async with opened_pool(without_encoding) as pool, pool.acquire() as connection:
        for size in range(1000, 5000, 7):
            # Of what is freed meanwhile, the allocator would write into the text.
            texts = ["x" * size, "y" * (size + 40)]
            assert await connection.fetchval("SELECT ARRAY[$1::text, $2::text]", *texts) == texts


async def test_bytes_that_are_no_utf8_are_replaced_in_a_database_without_encoding(
    without_encoding: str,
) -> None:
    async with (
        events_of(without_encoding) as (source, events),
        opened_pool(without_encoding) as pool,
        connected(without_encoding) as application,
    ):
        await application.execute(f"INSERT INTO public.tasks (id, agent) VALUES ('x', {NO_UTF8})")
        event = await events.get()
        assert (event.operation, event.key_text) == (Operation.INSERT, "x")
        await application.execute(f"SELECT brain.publish({NO_UTF8}, 'x', '{{}}')")
        assert (await events.get()).channel == "a\ufffdb"
        snapshot = await SnapshotReader(TableAccess(10_000)).read(pool, frozenset({"tasks"}))
        assert [parsed(row)["agent"] for row in snapshot.tables["tasks"]] == ["a\ufffdb"]
        for type in ("text", "varchar", "bpchar", "name"):
            assert await pool.fetchval(f"SELECT {NO_UTF8}::{type}") == "a\ufffdb"
        for type in ("json", "jsonb"):
            assert await pool.fetchval(f"SELECT to_{type}({NO_UTF8})") == '"a\ufffdb"'
        assert await pool.fetchval(f"SELECT ARRAY[{NO_UTF8}]") == ["a\ufffdb"]
        assert await pool.fetchval(f"SELECT ROW({NO_UTF8})") == ("a\ufffdb",)
        assert source.statistics().reconnections == 0


@pytest.mark.parametrize(
    ("encoding", "strange", "shown"),
    [
        ("SQL_ASCII", NO_UTF8, "a\ufffdb"),
        ("EUC_JP", "'a' || convert_from('\\xf4a9', 'EUC_JP') || 'b'", "a?b"),
        ("WIN1252", "'a' || convert_from('\\x81', 'WIN1252') || 'b'", "a?b"),
    ],
)
@pytest.mark.parametrize("ignored", ["{}", "{count}"])
async def test_a_feed_has_a_state_and_an_etag_whatever_bytes_are_in_it(
    postgres: str, encoding: str, strange: str, shown: str, ignored: str
) -> None:
    async with database_in(postgres, encoding) as url, opened_pool(url) as pool:
        await pool.execute("CREATE TABLE public.texts (value text)")
        await pool.execute(
            f"""
            SELECT brain.define_feed('texts', $$ SELECT jsonb_build_object(
                'count', count(*), 'all', jsonb_agg(DISTINCT value)) FROM texts $$, '{{texts}}',
                ignored_keys => '{ignored}')
            """
        )
        await pool.execute(f"INSERT INTO public.texts VALUES ({strange})")
        reader = FeedReader(pool, 10_000, PATIENCE_SECONDS)
        first = await reader.state("texts", None)
        assert first is not None and orjson.loads(first.text)["all"] == [shown]
        await pool.execute("INSERT INTO public.texts SELECT value FROM public.texts")
        second = await reader.state("texts", None)
        assert second is not None and (second.etag == first.etag) == (ignored != "{}")
        await pool.execute("INSERT INTO public.texts VALUES ('c')")
        third = await reader.state("texts", None)
        assert third is not None and third.etag != first.etag


async def test_an_error_with_such_bytes_is_one_of_the_query_alone(without_encoding: str) -> None:
    async with opened_pool(without_encoding) as pool, pool.acquire() as connection:
        process = await connection.fetchval("SELECT pg_backend_pid()")
        for query in (f"SELECT {NO_UTF8}::int", f"DO $$BEGIN RAISE '%', {NO_UTF8}; END$$"):
            with pytest.raises(UnicodeDecodeError):
                await connection.execute(query)
            assert await connection.fetchval("SELECT pg_backend_pid()") == process


@pytest.mark.parametrize(("encoding", "value"), [("WIN1252", "81"), ("EUC_JP", "f4a9")])
async def test_a_value_without_equivalent_in_utf8_is_an_error_of_the_query_alone(
    postgres: str, encoding: str, value: str
) -> None:
    async with database_in(postgres, encoding) as url, connected(url) as connection:
        with pytest.raises(asyncpg.UntranslatableCharacterError) as raised:
            await connection.fetchval(f"SELECT convert_from('\\x{value}', '{encoding}')")
        assert not is_lost_link(raised.value)
        assert await connection.fetchval("SELECT 1") == 1


@pytest.mark.parametrize(("encoding", "lacks"), [("LATIN1", "東"), ("EUC_JP", "😀")])
async def test_a_message_that_the_database_cannot_hold_is_refused(
    postgres: str, encoding: str, lacks: str
) -> None:
    async with database_in(postgres, encoding) as url, connected(url) as connection:
        for arguments in (
            (lacks, "type", None),
            ("channel", lacks, None),
            ("channel", "type", {"text": lacks}),
        ):
            with pytest.raises(MessageRefused, match=f'has no equivalent in encoding "{encoding}"'):
                await publish(*arguments, connection=connection)


async def test_clients_that_the_database_cannot_name_do_not_hide_the_others(postgres: str) -> None:
    async with database_in(postgres, "LATIN1") as url, connected(url) as connection:
        trackers = PresenceTracker(), PresenceTracker()
        clusters = [Cluster(url, tracker, PATIENCE_SECONDS) for tracker in trackers]
        nodes = [asyncio.create_task(cluster.run()) for cluster in clusters]
        for user, channel in (("東", "news"), ("ann", "東"), ("bob", "news")):
            trackers[0].add(ClientInfo(uuid4(), user, True, frozenset({channel})))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await clusters[1].clients_elsewhere() < 3:
                await asyncio.sleep(0.01)
            assert (await clusters[1].subscribers("news"))[0] == 2
            assert (await clusters[1].subscribers("東"))[0] == 0
            assert await connection.fetchval("SELECT count(*) FROM brain.nodes") == 2
        for node in nodes:
            node.cancel()
        await asyncio.wait(nodes)
