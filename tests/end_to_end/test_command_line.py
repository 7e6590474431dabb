from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import jwt
import pytest
from websockets.exceptions import ConnectionClosed

import brain as package
from brain.embedded.processes import suitable_account
from brain.embedded.server import EPHEMERAL_PREFIX, serve_embedded
from tests.database.stranger import PUBLISH
from tests.end_to_end.brain import (
    NOBODY,
    READY,
    RunningBrain,
    becomes,
    brain,
    ended,
    get,
    logged,
    message,
    running,
    running_brain,
)
from tests.pgbouncer import pgbouncer_to
from tests.postgres import as_role, named, new_database, ordinary_role
from tests.processes import working_in
from tests.proxy import proxy_to
from tests.schemas import every_schema

NAMES = [schema.name for schema in every_schema()]

# What is recognised of such a schema.
BEFORE_THE_FIRST_RELEASE = """
    DROP TABLE brain.schema_versions;
    CREATE TABLE brain.migrations (number int PRIMARY KEY, name text, sha256 text);
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a parent's death")
own_data_only = pytest.mark.skipif(
    suitable_account().user is not None,
    reason="without user namespaces root keeps its data in /var/lib/brain, not in its home",
)


async def refused(*arguments: str, status: int, **environment: str) -> str:
    """Return the one line with which `brain` refuses."""
    ended = await brain(*arguments, **environment)
    assert ended.status == status, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert "secret" not in line
    assert line.startswith("brain: ")
    return line.removeprefix("brain: ")


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    """The URL of a database that Brain has never seen."""
    async with new_database(postgres) as url:
        yield url


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment in which Brain keeps all that is its own below `tmp_path`."""
    (tmp_path / "tmp").mkdir()
    return {"XDG_DATA_HOME": str(tmp_path / "share"), "TMPDIR": str(tmp_path / "tmp")}


@pytest.fixture(scope="module")
async def kept_home() -> AsyncIterator[dict[str, str]]:
    """The same with a database in it, for tests that leave it without a server."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {"XDG_DATA_HOME": folder, "TMPDIR": folder}
        assert (await brain("migrate", **kept)).status == 0
        yield kept


@pytest.fixture
def kept(kept_home: dict[str, str]) -> Path:
    """The folder of the database in `kept_home`."""
    (folder,) = Path(kept_home["XDG_DATA_HOME"]).resolve().glob("brain/postgres-*")
    return folder


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_the_help_names_the_commands_and_every_option_with_its_variable() -> None:
    everything, serving, migrating, version = await asyncio.gather(
        brain("--help"), brain("serve", "--help"), brain("migrate", "-h"), brain("--version")
    )

    assert {everything.status, serving.status, migrating.status} == {0}
    assert re.search(
        r"serve +Serve the changes of a database to WebSocket clients", everything.stdout
    )
    assert re.search(r"migrate +Migrate a database\.", everything.stdout)
    for option in ("host", "port", "database-url", "migrate", "ephemeral"):
        assert f"--{option}" in serving.stdout
        assert "BRAIN_" + option.upper().replace("-", "_") in serving.stdout
    for option in ("--database-url", "--status", "--dry-run"):
        assert option in migrating.stdout
    assert version == (0, f"brain {package.__version__}\n", "")


async def test_without_a_command_the_help_is_shown() -> None:
    ended = await brain()

    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.startswith("Usage: ")


TYPED, OWN, PLAIN = (f"postgresql://127.0.0.1:1/{name}" for name in ("typed", "own", "plain"))


async def test_the_database_url_option_overrides_brains_variable_and_that_the_plain_one() -> None:
    both = {"BRAIN_DATABASE_URL": OWN, "DATABASE_URL": PLAIN}

    lines = await asyncio.gather(
        refused("serve", f"--database-url={TYPED}", status=1, **both, PORT="0"),
        refused("migrate", status=1, **both),
        refused("migrate", status=1, DATABASE_URL=PLAIN),
    )

    for line, winner in zip(lines, (TYPED, OWN, PLAIN), strict=True):
        assert line.startswith(f"cannot connect to {winner}: ")


async def test_host_and_port_are_overridden_in_the_same_order() -> None:
    own = {"BRAIN_HOST": "198.51.100.2", "BRAIN_PORT": "2"}
    plain = {"HOST": "198.51.100.3", "PORT": "3"}

    lines = await asyncio.gather(
        refused("serve", "--host=198.51.100.1", "--port=1", status=2, **own, **plain),
        refused("serve", status=2, **own, **plain),
        refused("serve", status=2, **plain),
    )

    for line, winner in zip(lines, (1, 2, 3), strict=True):
        assert line.startswith(f"cannot listen on 198.51.100.{winner}:{winner}: ")


# A command line, its environment, and the error.
MISTAKES: list[tuple[str, dict[str, str], str]] = [
    ("serve --database-url=mysql://me:secret@h/d", {}, "must read postgresql://"),
    ("serve --database-url=", {}, "must read postgresql://"),
    ("migrate", {"DATABASE_URL": "postgresql://me:secret@h:port/d"}, "must read postgresql://"),
    (
        "migrate --database-url=postgresql://me:secret@h/d?sslmode=maybe",
        {},
        "me@h/d is wrong: its parameter sslmode ",
    ),
    ("serve postgresql://me:secret@h/d", {}, r"unexpected extra argument\. Try"),
    ("serve --prot=1", {}, "No such option '--prot'.*Try '.*serve --help'"),
    ("migrate now", {}, "unexpected extra argument"),
    ("serf", {}, "No such command 'serf'"),
    ("serve --port=abc", {}, r"^--port is wrong: 'abc' is not a valid integer .*\bBRAIN_PORT\b"),
    ("serve", {"BRAIN_PORT": "abc"}, "^BRAIN_PORT or PORT is wrong: 'abc' .* valid integer"),
    ("serve", {"PORT": "70000"}, "^BRAIN_PORT or PORT is wrong: '70000' .* 65535"),
    ("serve --port=70000", {}, r"^--port is wrong: '70000' .* 65535 .*\bBRAIN_PORT\b"),
    ("serve --workers=0", {}, r"^--workers is wrong: '0' .* 1 .*\bBRAIN_WORKERS\b"),
    ("serve", {"BRAIN_MIGRATE": "perhaps"}, "^BRAIN_MIGRATE is wrong: 'perhaps' .* boolean"),
    ("serve", {"BRAIN_RING_BYTES": "much"}, "^BRAIN_RING_BYTES is wrong: 'much' .* integer"),
    ("serve", {"brain_ring_bytes": "0"}, "^BRAIN_RING_BYTES is wrong: '0' .* greater than 0"),
    ("serve", {"BRAIN_RING_SECONDS": "inf"}, "^BRAIN_RING_SECONDS is wrong: 'inf' .* finite"),
    ("serve", {"BRAIN_JWT_USER_CLAIM": ","}, "^BRAIN_JWT_USER_CLAIM is wrong: .* one word"),
    (
        "serve",
        {"BRAIN_ALLOWED_ORIGINS": "https://a.example https://b.example/"},
        "^BRAIN_ALLOWED_ORIGINS is wrong: 'https://b.example/' .* https://example.org",
    ),
    ("serve", {"BRAIN_ALLOWED_ORIGINS": "*"}, r"^BRAIN_ALLOWED_ORIGINS is wrong: '\*'"),
    ("serve", {"BRAIN_JWT_SECRET": "short"}, "^BRAIN_JWT_SECRET must have at least 32 .* 5$"),
    ("serve", {"BRAIN_JWKS_URL": "http://me:secret@h"}, "^BRAIN_JWKS_URL must .* with 'http'$"),
    ("serve", {"BRAIN_JWT_KEY_FILE": "/nowhere"}, "/nowhere: .*BRAIN_JWT_KEY_FILE"),
    ("serve --systems=nothing", {}, "nothing: BRAIN_SYSTEMS is .*cecelia"),
    ("watches", {"DATABASE_URL": "here"}, "BRAIN_DATABASE_URL or DATABASE_URL is wrong: "),
    ("serve --host=nowhere.invalid", {}, r"cannot listen on 'nowhere\.invalid'.*BRAIN_HOST"),
    ("serve --host=a..b", {}, r"cannot listen on 'a\.\.b': not a host name"),
    ("serve --host=0.0.0.0 --port=0", {}, r"listens on '0\.0\.0\.0'.*set BRAIN_ALLOWED_HOSTS"),
]


@pytest.mark.parametrize(("typed", "environment", "expected"), MISTAKES)
async def test_a_wrong_option_is_one_line_and_status_2(
    typed: str, environment: dict[str, str], expected: str
) -> None:
    assert re.search(expected, await refused(*typed.split(), status=2, **environment))


async def test_a_printed_token_has_its_user_in_the_first_claim_of_the_setting() -> None:
    secret = "0123456789abcdef0123456789abcdef"
    for setting, claim in ({}, "sub"), ({"BRAIN_JWT_USER_CLAIM": "userId sub"}, "userId"):
        printed = await brain("token", "--sub", "ann", BRAIN_JWT_SECRET=secret, **setting)
        claims = jwt.decode(printed.stdout.strip(), secret, ["HS256"])
        assert (claims[claim], sorted(claims)) == ("ann", sorted({claim, "exp", "iat"}))


async def test_with_a_port_that_is_taken_nothing_is_started(
    taken: int, home: dict[str, str], tmp_path: Path
) -> None:
    expected = f"port {taken} is taken: stop what listens there, or choose another --port"

    assert await refused("serve", f"--port={taken}", status=1, **home) == expected
    assert await refused("serve", f"--port={taken}", "--ephemeral", status=1, **home) == expected

    assert sorted(tmp_path.rglob("*")) == [tmp_path / "tmp"]


async def test_a_database_that_cannot_be_reached_is_one_line_and_status_1(postgres: str) -> None:
    down = "postgresql://me:secret@127.0.0.1:1/database"
    unknown = as_role(named(postgres, "no_such_database"), urlsplit(postgres).username or "")

    for command in (["serve", "--port=0"], ["migrate"]):
        lines = await asyncio.gather(
            refused(*command, status=1, DATABASE_URL=down),
            refused(*command, status=1, DATABASE_URL=unknown),
        )
        assert lines[0].startswith("cannot connect to postgresql://me@127.0.0.1:1/database: ")
        assert 'database "no_such_database" does not exist' in lines[1]


async def test_a_missing_right_is_named_in_one_line_and_status_1(
    postgres: str, empty: str, database: str
) -> None:
    async with ordinary_role(postgres) as (role, _):
        weak, weak_on_empty = as_role(database, role), as_role(empty, role)
        serve = ("serve", "--port=0", "--database-url")

        lines = await asyncio.gather(
            refused("migrate", "--database-url", weak_on_empty, status=1),
            refused("migrate", "--status", "--database-url", weak, status=1),
            refused(*serve, weak, status=1),
            refused(*serve, weak, "--no-migrate", status=1),
        )
        assert "an administrator can allow it with " in lines[0]
        assert "; GRANT CREATE ON DATABASE" in lines[0]
        for line in lines[1:]:
            assert f"the role at {role_shown(database, role)} lacks rights: " in line

        connection = await asyncpg.connect(database)
        await connection.execute(
            f"GRANT USAGE ON SCHEMA brain TO {role};"
            f" GRANT SELECT ON brain.schema_versions TO {role}"
        )
        line = await refused(*serve, weak, "--no-migrate", status=1)
        assert "permission denied for function tick" in line, "it would be refused for ever"

        await connection.execute(f"GRANT brain_owner TO {role}")
        line = await refused(*serve, weak, "--systems=all", "--samples", status=1)
        assert "permission denied for table tasks" in line
        await connection.close()


def role_shown(url: str, role: str) -> str:
    return urlsplit(as_role(url, role)).geturl().replace(":secret@", "@")


async def test_a_server_older_than_14_is_one_line_and_status_1(postgres: str) -> None:
    version = re.compile(rb"(?<=server_version\x00)\d\d")

    async with proxy_to(postgres, lambda data: version.sub(b"13", data)) as (url, _):
        for command in (["serve", "--port=0"], ["migrate"]):
            line = await refused(*command, "--database-url", url, status=1)
            assert re.fullmatch(r"PostgreSQL 13 at .* is too old: Brain needs 14 or newer", line)


async def test_a_pooler_in_transaction_mode_is_one_line_and_status_1(database: str) -> None:
    with pgbouncer_to(database, "transaction") as url:
        for command in (["serve", "--port=0"], ["migrate"]):
            line = await refused(*command, "--database-url", url, status=1)
            assert re.search("is a pooler in transaction mode.*: give Brain a direct", line)


async def test_migrations_that_do_not_match_are_one_line_and_status_1(
    database: str, empty: str, connection: asyncpg.Connection
) -> None:
    serve = ("serve", "--port=0", "--database-url")
    pending = f"lacks {', '.join(NAMES)}: run `brain migrate`"
    lines = await asyncio.gather(
        refused(*serve, empty, "--systems=all", "--no-migrate", status=1),
        refused(*serve, empty, status=1, BRAIN_MIGRATE="no", BRAIN_SYSTEMS="all"),
    )
    assert all(line.endswith(pending) for line in lines)

    await connection.execute(
        "INSERT INTO brain.schema_versions VALUES ('brain', 9000, '9000_new', '', '9.0', now(), 0)"
    )
    newer = await asyncio.gather(
        refused(*serve, database, status=1),
        refused(*serve, database, "--no-migrate", status=1),
        refused("migrate", "--database-url", database, status=1),
    )
    assert all(line.endswith(": install Brain 9.0") for line in newer)

    await connection.execute(BEFORE_THE_FIRST_RELEASE)
    old = await asyncio.gather(
        refused(*serve, database, status=1),
        refused("migrate", "--database-url", database, status=1),
    )
    afresh = f"psql {database} -c 'DROP SCHEMA brain CASCADE'"
    assert all("before its first release" in line and line.endswith(afresh) for line in old)


@own_data_only
async def test_brains_own_database_from_before_the_first_release_names_the_folder_to_remove(
    home: dict[str, str],
) -> None:
    assert (await brain("migrate", **home)).status == 0
    (folder,) = Path(home["XDG_DATA_HOME"]).resolve().glob("brain/postgres-*")
    with serve_embedded(folder) as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute(BEFORE_THE_FIRST_RELEASE)
        await connection.close()

    line = await refused("serve", "--port=0", status=1, **home)

    assert "before its first release" in line
    assert line.endswith(f"rm -r {folder}")
    shutil.rmtree(folder)
    assert (await brain("migrate", **home)).status == 0


async def test_migrate_prints_what_it_would_apply_what_it_applies_and_what_is_applied(
    empty: str, connection: asyncpg.Connection
) -> None:
    async def printed(*options: str) -> str:
        command = ("migrate", "--database-url", empty, "--systems", "all")
        ended = await brain(*command, *options)
        assert (ended.status, ended.stderr) == (0, "")
        return ended.stdout

    def lines(word: str) -> str:
        return "".join(f"{word}  {name}\n" for name in NAMES)

    assert await printed("--dry-run") == lines("would apply")
    assert await printed("--status") == lines("pending"), "the dry run changed something"
    assert await printed() == lines("applied") + f"{empty} is up to date\n"
    assert await printed() == f"{empty} is up to date\n"
    assert await printed("--status") == lines("applied")
    assert await printed("--dry-run") == "nothing to apply\n"


async def test_systems_shows_what_a_database_has_and_lacks_whichever_systems_are_on(
    empty: str,
) -> None:
    async def printed() -> list[str]:
        ended = await brain("systems", "--database-url", empty)
        assert (ended.status, ended.stderr) == (0, "")
        lines = ended.stdout.splitlines()
        assert [line[:3] for line in lines[:5]] == ["off"] * 5
        return [line.strip() for line in lines[5:]]

    assert await printed() == [], "it has no schema of Brain's"
    connection = await asyncpg.connect(empty)
    await connection.execute("CREATE TABLE workflows (id text PRIMARY KEY)")
    await connection.close()
    migrated = await brain("migrate", "--database-url", empty, "--systems", "cecelia,workflows")
    assert migrated.status == 0

    first, *problems = await printed()

    assert first == "applied to this database: the schemas of cecelia, workflows"
    assert [line.partition(", ")[0] for line in problems[:3]] == [
        "public.workflows lacks name",
        "the feed workflows is not defined",
        "public.tasks fits cecelia: --systems cecelia",
    ]


@own_data_only
async def test_without_a_url_systems_makes_no_database_and_shows_the_problems_of_an_existing_one(
    home: dict[str, str], kept_home: dict[str, str]
) -> None:
    fresh, kept = await asyncio.gather(brain("systems", **home), brain("systems", **kept_home))

    assert (fresh.status, fresh.stderr) == (kept.status, kept.stderr) == (0, "")
    *listed, found = kept.stdout.splitlines()
    assert fresh.stdout.splitlines() == listed
    assert found.startswith("    applied to this database: the schemas of cecelia, ")
    assert not Path(home["XDG_DATA_HOME"]).exists()


@own_data_only
async def test_without_a_url_migrate_works_on_brains_own_server_whether_it_runs_or_not(
    tmp_path: Path, kept_home: dict[str, str], kept: Path
) -> None:
    up_to_date = r"postgresql://cecelia@localhost:\d+/cecelia is up to date\n"
    alone = await brain("migrate", **kept_home)
    assert (alone.status, alone.stderr) == (0, "")
    assert re.fullmatch(up_to_date, alone.stdout)
    assert working_in(kept) == []

    async with running_brain(tmp_path, **kept_home) as serving:
        beside, status = await asyncio.gather(
            brain("migrate", **kept_home), brain("migrate", "--status", **kept_home)
        )
        assert (beside.status, beside.stderr) == (0, "")
        assert re.fullmatch(up_to_date, beside.stdout)
        assert status.stdout == "".join(f"applied  {name}\n" for name in NAMES)
        assert (await get(serving.http + "/readyz"))[0] == 200


def printed(serving: RunningBrain, program: str) -> list[str]:
    """Return the printed commands that call a program."""
    label = r"^  (?:[a-z]+ {2,}|[a-z ]{12} )"
    typed = re.findall(label + r"(\S.*?)(?: {2,}.*)?$", serving.output.read_text(), re.M)
    return [line for line in typed if re.match(rf"\S*\b{program}\b", line)]


async def test_the_commands_printed_at_the_start_work_as_printed(
    tmp_path: Path, home: dict[str, str]
) -> None:
    async with running_brain(tmp_path, "--ephemeral", "--samples", **home) as serving:
        (page,) = printed(serving, "http")
        (curl,) = printed(serving, "curl")
        assert page == f"http://localhost:{serving.port}/"
        assert curl == f"curl http://localhost:{serving.port}/api/brain/status/ws"
        assert printed(serving, "wscat") == [f"wscat -c ws://localhost:{serving.port}/ws"]
        assert (await get(page))[0] == (await get(curl.removeprefix("curl ")))[0] == 200

        async with serving.client() as client:
            types = []
            for line in printed(serving, "psql"):
                typed = await ended(["bash", "-c", line])
                assert (typed.stdout, typed.stderr) == ("UPDATE 1\n", "")
                types.append((await message(client))["type"])
        assert types == ["run_update", "run_update", "run_complete", "run_failed"]


async def test_the_command_printed_at_the_start_reaches_the_same_database(
    tmp_path: Path, core_database: str
) -> None:
    parts = urlsplit(core_database)
    host = parts.netloc.rpartition("@")[2]
    password = urlunsplit(parts._replace(netloc=f"{parts.username}:secret@{host}"))
    command = "brain watch orders --columns id,status"
    async with running_brain(tmp_path, BRAIN_SYSTEMS="", BRAIN_DATABASE_URL=password) as serving:
        assert printed(serving, "brain watch") == [command]
        same = f"{command}      (with the same BRAIN_DATABASE_URL or DATABASE_URL)\n"
        assert same in serving.output.read_text()
    option = ("--database-url", password)
    async with running_brain(tmp_path, *option, BRAIN_SYSTEMS="") as serving:
        hidden = password.replace("secret", "...")
        assert printed(serving, "brain watch") == [f"{command} --database-url {hidden}"]
        assert "secret" not in serving.output.read_text()


@own_data_only
async def test_without_a_url_the_data_is_kept_in_the_users_folder_between_two_runs(
    tmp_path: Path, kept_home: dict[str, str], kept: Path
) -> None:
    async with running_brain(tmp_path, **kept_home) as first:
        for line in printed(first, "psql"):
            typed = await ended(["bash", "-c", line])
            assert re.fullmatch("INSERT 0 2|UPDATE 1", typed.stdout.strip()), typed
    assert (kept / "data" / "PG_VERSION").exists()
    assert working_in(kept) == []

    async with running_brain(tmp_path, **kept_home) as second:
        async with second.client() as client:
            add, start, *_ = printed(second, "psql")
            assert (await ended(["bash", "-c", add])).stdout == "INSERT 0 0\n"
            assert (await ended(["bash", "-c", start])).stdout == "UPDATE 1\n"
            again = (await message(client))["data"]
            assert (again["id"], again["status"], again["progress"]) == (
                *("task-123", "in_progress", 11),
            )


async def test_an_ephemeral_database_leaves_nothing(tmp_path: Path, home: dict[str, str]) -> None:
    async with running_brain(tmp_path, "--ephemeral", **home) as serving:
        (folder,) = (tmp_path / "tmp").iterdir()
        assert folder.name.startswith(EPHEMERAL_PREFIX)
        serving.process.terminate()
        assert await serving.stopped() == 0

    assert working_in(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "share").exists()


@linux_only
@own_data_only
@pytest.mark.parametrize(("sign", "status"), [("SIGKILL", -9), ("SIGTERM", 0), ("SIGINT", 0)])
async def test_the_end_of_brain_is_the_end_of_its_server(
    tmp_path: Path, kept_home: dict[str, str], kept: Path, sign: str, status: int
) -> None:
    async with running_brain(tmp_path, **kept_home) as serving:
        assert working_in(kept)
        serving.process.send_signal(signal.Signals[sign])
        assert await serving.stopped() == status
        if sign == "SIGKILL":
            await becomes(lambda: not working_in(kept))
        assert working_in(kept) == []
        assert not (kept / "data" / "postmaster.pid").exists()

    if sign == "SIGKILL":
        async with running_brain(tmp_path, **kept_home) as next_one:
            assert (await get(next_one.http + "/readyz"))[0] == 200


@own_data_only
async def test_a_second_ctrl_c_disturbs_nothing(
    tmp_path: Path, kept_home: dict[str, str], kept: Path
) -> None:
    async with running_brain(tmp_path, **kept_home) as serving:
        async with serving.client() as client:
            serving.process.send_signal(signal.SIGINT)
            with pytest.raises(ConnectionClosed):
                await message(client)
            serving.process.send_signal(signal.SIGINT)
            assert await serving.stopped() == 0
    assert "Traceback" not in serving.output.read_text()
    assert working_in(kept) == []


@linux_only
@own_data_only
async def test_ctrl_c_while_the_database_is_made_leaves_no_process(
    tmp_path: Path, home: dict[str, str]
) -> None:
    command = (sys.executable, "-m", "brain", "serve", "--port=0")
    output = tmp_path / "brain.log"
    async with running(command, output, home) as process:
        await becomes(lambda: list(tmp_path.glob("share/brain/*/unfinished-*/PG_VERSION")))
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 128 + signal.SIGINT
    assert output.read_text() == ""
    await becomes(lambda: not working_in(tmp_path))

    async with running_brain(tmp_path, **home):
        assert not list(tmp_path.glob("share/brain/*/unfinished-*"))


@linux_only
@own_data_only
async def test_sigterm_while_the_server_starts_leaves_nothing(
    tmp_path: Path, kept_home: dict[str, str], kept: Path
) -> None:
    command = (sys.executable, "-m", "brain", "serve", "--port=0")
    trace = kept / "data" / "postmaster.pid"
    output = tmp_path / "brain.log"
    async with running(command, output, kept_home) as process:
        await becomes(trace.exists)
        process.terminate()
        assert await process.wait() in (0, 128 + signal.SIGTERM)
    assert working_in(kept) == []
    assert not trace.exists()
    assert READY.search(output.read_text()) is None


@own_data_only
async def test_a_second_brain_on_the_same_data_is_an_error_in_one_line(
    tmp_path: Path, kept_home: dict[str, str], kept: Path
) -> None:
    async with running_brain(tmp_path, **kept_home) as serving:
        line = await refused("serve", "--port=0", status=1, **kept_home)
        assert line.startswith(f"another Brain uses {kept} (its PostgreSQL is process ")
        assert line.endswith(
            "): stop it, or choose another folder with XDG_DATA_HOME, or `brain serve --ephemeral`"
        )
        assert (await get(serving.http + "/readyz"))[0] == 200


@linux_only
@own_data_only
async def test_if_its_server_dies_brain_exits_with_1_and_a_reason(
    tmp_path: Path, kept_home: dict[str, str], kept: Path
) -> None:
    async with running_brain(tmp_path, **kept_home) as serving:
        postmaster = int((kept / "data" / "postmaster.pid").read_text().split()[0])
        async with serving.client() as client:
            os.kill(postmaster, signal.SIGKILL)
            with pytest.raises(ConnectionClosed) as closed:
                await message(client)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        assert await serving.stopped() == 1
    *_, last = serving.output.read_text().splitlines()
    assert last == (
        f"brain: the PostgreSQL that Brain started on {kept} has ended, and so does Brain"
    )
    assert "Traceback" not in serving.output.read_text()
    await becomes(lambda: not working_in(kept))

    async with running_brain(tmp_path, **kept_home):
        pass


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "shown", "answering"),
    [
        (None, "localhost", ["127.0.0.1", "[::1]"]),
        ("0.0.0.0", "localhost", ["127.0.0.1"]),
        ("127.0.0.1", "127.0.0.1", ["127.0.0.1"]),
        ("::1", "[::1]", ["[::1]"]),
    ],
)
async def test_brain_listens_on_the_given_host(
    tmp_path: Path, database: str, host: str | None, shown: str, answering: list[str]
) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("there is no IPv6 here")
    option = [f"--host={host}"] if host else []
    names = {"BRAIN_ALLOWED_HOSTS": "localhost"} if host == "0.0.0.0" else {}
    async with running_brain(tmp_path, "--database-url", database, *option, **names) as serving:
        assert printed(serving, "http") == [f"http://{shown}:{serving.port}/"]
        for address in ("127.0.0.1", "[::1]"):
            if address == "127.0.0.1" or has_ipv6():
                is_open = not await refuses(address.strip("[]"), serving.port)
                assert is_open == (address in answering), address
                if is_open:
                    assert (await get(f"http://{address}:{serving.port}/readyz"))[0] == 200


async def refuses(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return True
    writer.close()
    await writer.wait_closed()
    return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_an_ordinary_user_can_serve_too() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "home").mkdir()
        os.chown(folder / "home", NOBODY, NOBODY)
        home = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "home")}
        environment = home | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = (
            interpreter(environment),
            "-m",
            "brain",
            "serve",
            "--port=0",
            "--samples",
            "--ephemeral",
        )
        output = folder / "brain.log"
        async with running(command, output, environment, cwd=folder, is_nobody=True) as process:
            port = int((await logged(output, READY, process))[1])
            serving = RunningBrain(process, port, output)
            async with serving.client() as client:
                start, *_ = printed(serving, "psql")
                assert (await ended(["bash", "-c", start])).stdout == "UPDATE 1\n"
                assert (await message(client))["data"]["status"] == "in_progress"
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        assert working_in(folder) == []
        assert list((folder / "home").iterdir()) == []


def interpreter(environment: dict[str, str]) -> str:
    """A Python that every user can run: that of a virtual environment may lie in a closed home."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            probe = subprocess.run(
                [candidate, "-c", "import brain.cli.main"],
                cwd="/",
                env=environment,
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                capture_output=True,
            )
        except OSError:
            continue
        if probe.returncode == 0:
            return candidate
    pytest.skip("an ordinary user can run no Python with Brain here")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a\udcff", "greeting"], "Invalid value for 'CHANNEL': 'a?' is not UTF-8"),
        (["news", " "], "Invalid value for 'TYPE': the name is empty"),
        (["news", "greeting", "\udcff"], "Invalid value for '[DATA]': '?' is not UTF-8"),
        (["news", "x", "--to", "\udcff"], "Invalid value for '--to': '?' is not UTF-8"),
    ],
)
async def test_what_cannot_be_published_is_named_with_its_argument(
    arguments: list[str], line: str
) -> None:
    assert (await refused("publish", *arguments, status=2)).startswith(line)


@pytest.mark.parametrize(
    ("command", "server"),
    [
        ("openapi", [{"url": "https://example.org/brain"}]),
        (
            "asyncapi",
            {
                "websocket": {"host": "example.org", "protocol": "wss", "pathname": "/brain"},
                "http": {"host": "example.org", "protocol": "https", "pathname": "/brain"},
            },
        ),
    ],
)
async def test_documents_are_printed_without_a_database(
    command: str, server: object, home: dict[str, str]
) -> None:
    url = ("--server", "https://example.org/brain/")
    every = await brain(command, *url, "--systems", "all", **home)
    one = await brain(command, "--systems", "workflows", BRAIN_PORT="5299", **home)

    assert (every.status, every.stderr, one.status, one.stderr) == (0, "", 0, "")
    document, smaller = json.loads(every.stdout), json.loads(one.stdout)
    assert document["servers"] == server
    assert "localhost:5299" in json.dumps(smaller["servers"])
    assert document["components"]["schemas"].keys() > smaller["components"]["schemas"].keys()
    assert not Path(home["XDG_DATA_HOME"]).exists()


@pytest.mark.parametrize("command", ["asyncapi", "openapi"])
async def test_what_is_no_url_of_a_server_is_refused(command: str) -> None:
    line = await refused(command, "--server", "example.org", status=2)

    assert line.startswith("Invalid value for '--server': it should be like https://")


async def test_a_role_that_may_do_nothing_but_publish_can(
    postgres: str, core_database: str
) -> None:
    async with strange_publisher(postgres, core_database) as (url, admin):
        lacking = await refused("publish", "news", "greeting", f"--database-url={url}", status=1)
        assert "lacks rights: permission denied for schema brain" in lacking

        await admin.execute(PUBLISH.format(role=urlsplit(url).username))
        done = await brain("publish", "news", "greeting", f"--database-url={url}")
        assert done == (0, "published greeting on the channel news\n", "")


@pytest.mark.parametrize("leftover", ["SELECT 1", "CREATE SCHEMA brain"])
async def test_in_a_database_without_brain_nothing_is_published(empty: str, leftover: str) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute(leftover)
    await connection.close()

    line = await refused("publish", "news", "greeting", f"--database-url={empty}", status=1)
    assert line.endswith(" lacks Brain's schema: run `brain migrate`")


@asynccontextmanager
async def strange_publisher(server: str, url: str) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """Yield the URL of a role without rights, and an administrator of its database."""
    async with ordinary_role(server) as (role, _):
        admin = await asyncpg.connect(url)
        try:
            yield as_role(url, role), admin
        finally:
            await admin.close()
