"""The npm package: small, typed, and of use in an empty project."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

import brain.web.client
from tests.clients.commands import done
from tests.clients.orders import ORDERS
from tests.end_to_end.brain import PATIENCE_SECONDS, RunningBrain, becomes, running
from tests.node_packages import CLIENT


def tool(package: Path, name: str) -> Path:
    return package / "node_modules" / ".bin" / name


@pytest.fixture
async def orders(shared_brain: RunningBrain, shared_database: str) -> AsyncIterator[RunningBrain]:
    """A Brain that streams a table with one open order."""
    connection = await asyncpg.connect(shared_database)
    await connection.execute(ORDERS)
    await connection.close()
    yield shared_brain


async def test_what_brain_serves_is_what_the_sources_build(package: Path) -> None:
    built = package.parents[1] / "brain" / "web" / "static" / "client"

    for name in brain.web.client.MODULES:
        served = brain.web.client.FOLDER / name
        assert served.read_bytes() == (built / name).read_bytes(), "run `make client`"


async def test_each_entry_is_as_small_as_it_has_to_be(package: Path) -> None:
    await done("node", "size.js", cwd=package)


async def test_an_entry_that_is_too_large_fails(package: Path) -> None:
    noise = "".join(str(hash((number, "noise"))) for number in range(1000))
    (package / "dist" / "noise.js").write_text(noise)
    script = (package / "size.js").read_text().replace("'react.js'", "'noise.js'")
    (package / "size-of-noise.js").write_text(script)

    with pytest.raises(AssertionError, match=r"noise\.js: \d+ bytes of at most 500"):
        await done("node", "size-of-noise.js", cwd=package)
    (package / "dist" / "noise.js").unlink()


async def test_sources_and_tests_have_the_types_that_a_strict_compiler_wants(package: Path) -> None:
    await done(tool(package, "tsc"), cwd=package)


async def test_the_tests_of_the_client_pass(package: Path) -> None:
    await done(tool(package, "vitest"), "run", cwd=package)


async def test_publint_finds_nothing(package: Path) -> None:
    await done(tool(package, "publint"), "--strict", cwd=package)


async def test_are_the_types_wrong_finds_nothing(package: Path) -> None:
    # What `node10` resolves has no subpaths; compilers have ceased to resolve so with TypeScript 7.
    await done(tool(package, "attw"), "--pack", ".", "--profile", "node16", cwd=package)


def test_the_package_has_the_version_of_brain_and_no_dependencies() -> None:
    manifest = json.loads((CLIENT / "package.json").read_text())

    assert manifest["version"] == brain.__version__
    assert "dependencies" not in manifest


def test_the_lock_file_names_no_registry() -> None:
    assert "://" not in (CLIENT / "package-lock.json").read_text()


async def test_the_package_has_the_entries_and_their_types_alone(project: Path) -> None:
    installed = project / "node_modules" / "brain-realtime"
    files = {str(file.relative_to(installed)) for file in installed.rglob("*") if file.is_file()}
    kinds = {"".join(Path(file).suffixes) for file in files if file.startswith("dist/")}

    assert {file for file in files if not file.startswith("dist/")} == {"package.json", "README.md"}
    assert kinds == {".js", ".cjs", ".d.ts", ".d.cts"}


@pytest.mark.parametrize("module", ["rows.mjs", "rows.cjs"])
async def test_an_empty_project_gets_rows_and_changes(
    module: str, project: Path, orders: RunningBrain, shared_database: str, tmp_path: Path
) -> None:
    await gets_rows_and_changes(module, project, orders, shared_database, tmp_path)


@pytest.mark.parametrize("module", ["vue.mjs", "tanstack-db.mjs"])
async def test_an_adapter_gets_rows_and_changes(
    module: str,
    typescript_project: Path,
    orders: RunningBrain,
    shared_database: str,
    tmp_path: Path,
) -> None:
    await gets_rows_and_changes(module, typescript_project, orders, shared_database, tmp_path)


async def gets_rows_and_changes(
    module: str, project: Path, orders: RunningBrain, database: str, tmp_path: Path
) -> None:
    """Fail unless a program prints the open orders, and again when another one is opened."""
    output = tmp_path / "rows.log"
    async with running(("node", module, orders.http), output, {}, cwd=project) as process:
        await becomes(lambda: "\n" in output.read_text() or process.returncode is not None)
        connection = await asyncpg.connect(database)
        await connection.execute("UPDATE orders SET status = 'open' WHERE id = 2")
        await connection.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            status = await process.wait()

    first, *_, last = output.read_text().splitlines()
    assert json.loads(first) == [{"id": 1, "status": "open"}]
    assert json.loads(last) == [{"id": 1, "status": "open"}, {"id": 2, "status": "open"}]
    assert status == 0


@pytest.mark.parametrize(
    ("module", "resolution", "file"),
    [
        ("node16", "node16", "application.mts"),
        ("node16", "node16", "application.cts"),
        ("esnext", "bundler", "application.mts"),
    ],
)
async def test_the_types_are_there_for_each_way_to_resolve_them(
    module: str, resolution: str, file: str, typescript_project: Path, package: Path
) -> None:
    options = ("--strict", "--noEmit", "--skipLibCheck", "--lib", "es2022,dom", "--types", "")
    resolving = ("--module", module, "--moduleResolution", resolution)

    await done(tool(package, "tsc"), *options, *resolving, file, cwd=typescript_project)


async def test_adapters_are_imported_and_required(typescript_project: Path) -> None:
    for entry, name in {
        "react": "useRows",
        "vue": "useRows",
        "tanstack-db": "brainCollectionOptions",
    }.items():
        imported = f"import {{ {name} }} from 'brain-realtime/{entry}'; console.log(typeof {name})"
        required = f"console.log(typeof require('brain-realtime/{entry}').{name})"
        for kind, code in {"module": imported, "commonjs": required}.items():
            command = ("node", f"--input-type={kind}", "--eval", code)
            assert await done(*command, cwd=typescript_project) == "function\n"
