"""The packages of the clients, built as for their publication."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.clients.commands import done
from tests.node_packages import CLIENT, node_packages

__all__ = ["node_packages"]

LEFT_OUT = shutil.ignore_patterns("node_modules", "dist", ".cache")


@pytest.fixture(scope="session")
async def package(node_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of clients/typescript with its packages; what Brain serves is built beside it."""
    folder = tmp_path_factory.mktemp("checkout") / "clients" / "typescript"
    shutil.copytree(CLIENT, folder, ignore=LEFT_OUT)
    (folder / "node_modules").symlink_to(node_packages / "node_modules")
    await done("node", "build.js", cwd=folder)
    return folder


@pytest.fixture(scope="session")
async def project(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project, in which the package is installed as npm would get it."""
    folder = tmp_path_factory.mktemp("project")
    packed = await done(
        "npm", "pack", "--ignore-scripts", "--pack-destination", folder, cwd=package
    )
    (folder / "package.json").write_text('{"name": "project", "private": true}')
    install = ("install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts")
    await done("npm", *install, folder / packed.split()[-1], cwd=folder)
    for file in (Path(__file__).parent / "project").iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def typescript_project(project: Path, node_packages: Path) -> Path:
    """The project, with what the adapters are for."""
    installed, wanted = node_packages / "node_modules", project / "node_modules"
    (wanted / "@types").mkdir()
    for name in ("react", "vue", "@tanstack", "@types/react"):
        os.symlink(installed / name, wanted / name)
    return project
