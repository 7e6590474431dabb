"""brain types"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.end_to_end.brain import Ended, brain

ORDERS = """
    CREATE TABLE orders (id integer PRIMARY KEY, note text, secret text);
    SELECT brain.watch('orders', 'orders', '{id,note}');
"""
TYPESCRIPT = """\
// Made by: brain types --typescript
// The rows of the tables that Brain watches.

/** A row of public.orders, on the channel orders. */
export interface Orders {
  id: number;
  note: string | null;
}

/** The row of each channel, for `createBrain<Tables>()`. */
export interface Tables {
  orders: Orders;
}
"""
PYTHON = '''\
# Made by: brain types --python --omitted
"""The rows of the tables that Brain watches."""

from pydantic import BaseModel


class Orders(BaseModel):
    """A row of public.orders, on the channel orders."""

    id: int
    note: str | None = None
'''


@pytest.fixture
async def url(core_database: str) -> AsyncIterator[str]:
    connection = await asyncpg.connect(core_database)
    await connection.execute(ORDERS)
    await connection.close()
    yield core_database


async def types(url: str, *options: str) -> Ended:
    return await brain("types", *options, "--database-url", url)


async def test_types_are_printed(url: str) -> None:
    assert await types(url, "--typescript") == (0, TYPESCRIPT, "")
    assert await types(url, "--python", "--omitted") == (0, PYTHON, "")


async def test_a_file_is_written_as_a_whole_and_checked(url: str, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    link, file = tmp_path / "rows.ts", tmp_path / "kept" / "rows.ts"
    file.write_text("what was there before")
    file.chmod(0o640)
    link.symlink_to(file)
    before = file.stat().st_ino

    done = await types(url, "--typescript", "--check", str(link))
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr == (
        f"brain: {link} differs from the database: brain types --typescript --output {link}\n"
    )
    assert file.read_text() == "what was there before"

    assert await types(url, "--typescript", "--output", str(link)) == (0, "", "")
    assert link.is_symlink() and file.read_text() == TYPESCRIPT
    # Whatever has the old file open goes on reading that.
    assert file.stat().st_ino != before and file.stat().st_mode & 0o777 == 0o640
    assert [*file.parent.iterdir()] == [file]

    assert await types(url, "--typescript", "--check", str(link)) == (0, "", "")
    assert (await types(url, "--typescript", "--omitted", "--check", str(link))).status == 1


async def test_a_file_that_does_not_exist_differs(url: str, tmp_path: Path) -> None:
    done = await types(url, "--python", "--check", str(tmp_path / "rows.py"))

    assert done.status == 1 and "rows.py does not exist: brain types --python" in done.stderr


async def test_a_file_that_cannot_be_written_is_one_line(url: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "rows.ts"

    done = await types(url, "--typescript", "--output", str(missing))

    assert done == (2, "", f"brain: {missing} cannot be written: No such file or directory\n")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ((), "one of --typescript and --python is needed"),
        (("--python", "--output", "a", "--check", "b"), "--output and --check exclude each other"),
    ],
)
async def test_options_that_make_no_sense_are_refused(options: tuple[str, ...], error: str) -> None:
    assert await brain("types", *options) == (2, "", f"brain: {error}\n")


async def test_a_dropped_table_is_a_warning(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("DROP TABLE orders")
    await connection.close()

    done = await types(url, "--typescript")

    assert done.status == 0 and "interface Orders" not in done.stdout
    assert done.stderr == "brain: warning: public.orders was dropped: it has no type\n"


async def test_a_role_needs_the_rights_that_brain_watches_needs(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE ROLE types_member LOGIN IN ROLE brain_owner")
    await connection.execute("CREATE ROLE types_stranger LOGIN")
    parts = urlsplit(url)
    try:
        for role, status in (("types_member", 0), ("types_stranger", 1)):
            address = parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}").geturl()
            found = await types(address, "--typescript")
            watches = await brain("watches", "--database-url", address)
            assert (found.status, watches.status) == (status, status), found.stderr
            assert found.stderr == watches.stderr
    finally:
        await connection.execute("DROP ROLE types_member, types_stranger")
        await connection.close()
