"""The npm packages that the documents' clients use."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.end_to_end.brain import ended

HERE = Path(__file__).parent
INSTALL = (
    *("ci", "--no-fund", "--no-audit", "--ignore-scripts", "--prefer-offline"),
    *("--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"),
)
INSTALL_SECONDS = 100


class Packages:
    """The packages of package.json, installed in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.environment = {"NODE_PATH": str(folder / "node_modules")}
        """Lets node and esbuild find the packages from any folder."""

    def command(self, name: str) -> str:
        return str(self._folder / "node_modules" / ".bin" / name)

    async def bundled(self, code: str) -> str:
        """Return a module in TypeScript, with all that it imports, as a script for a browser."""
        options = ("--bundle", "--jsx=automatic", '--define:process.env.NODE_ENV="production"')
        with TemporaryDirectory() as folder:
            source = Path(folder) / "module.tsx"
            source.write_text(code, encoding="utf-8")
            command = (self.command("esbuild"), str(source), *options, "--log-level=warning")
            done = await ended(command, self.environment)
        assert (done.status, done.stderr) == (0, ""), done.stderr
        return done.stdout


def installed(folder: Path) -> Packages:
    """
    Install the packages in a folder; skip the test if that is not possible.

    If NODE_PACKAGES names a folder, they are installed there already.
    """
    if given := os.environ.get("NODE_PACKAGES"):
        return Packages(Path(given))
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    try:
        subprocess.run(
            (npm, *INSTALL),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm has not installed the packages within {INSTALL_SECONDS} s")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm cannot install the packages: {error.stderr.strip().splitlines()[0]}")
    return Packages(folder)
