"""Makes the script of the page: the table of examples/react, with the client of this checkout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.end_to_end.brain import ended

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2]
CLIENT = CHECKOUT / "clients" / "typescript" / "src"
TABLE = CHECKOUT / "examples" / "react" / "src" / "OrdersTable.tsx"
ADDRESS = "createBrain('http://localhost:5221')"
OPTIONS = (
    *("--bundle", "--jsx=automatic", "--log-level=warning", "--target=es2022"),
    # StrictMode mounts twice in this environment only.
    '--define:process.env.NODE_ENV="development"',
)


class Edit(NamedTuple):
    """A change of the client's source, to see whether the battery notices it."""

    file: str
    before: str
    after: str


class CannotBundle(Exception):
    """There is no esbuild, or it fails."""


async def bundle(packages: Path, edits: Sequence[Edit] = ()) -> str:
    """Return the page's script; `packages` is a folder with the client's node_modules."""
    esbuild = packages / "node_modules" / ".bin" / "esbuild"
    if not esbuild.exists():
        raise CannotBundle(f"there is no {esbuild}: run `npm ci` in clients/typescript")
    with TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        shutil.copytree(CLIENT, place / "client")
        for edit in edits:
            apply(edit, place / "client" / edit.file)
        table = TABLE.read_text(encoding="utf-8")
        if ADDRESS not in table:
            raise CannotBundle(f"{TABLE.name} has no {ADDRESS}")
        table = table.replace(ADDRESS, "createBrain(window.battery.url, window.battery.options)")
        (place / "OrdersTable.tsx").write_text(table, encoding="utf-8")
        shutil.copy(HERE / "page.tsx", place)
        (place / "node_modules").symlink_to(packages / "node_modules")
        command = (
            str(esbuild),
            str(place / "page.tsx"),
            f"--alias:brain-realtime={place / 'client' / 'index.ts'}",
            f"--alias:brain-realtime/react={place / 'client' / 'react.ts'}",
            *OPTIONS,
        )
        done = await ended(command, {"PATH": os.environ["PATH"]}, cwd=place)
    if done.status != 0:
        raise CannotBundle(done.stderr)
    return done.stdout


def apply(edit: Edit, file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    if source.count(edit.before) != 1:
        raise CannotBundle(f"{edit.file} has {edit.before!r} {source.count(edit.before)} times")
    file.write_text(source.replace(edit.before, edit.after), encoding="utf-8")
