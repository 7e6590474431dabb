"""The npm packages that the TypeScript client is built and tested with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[1] / "clients" / "typescript"


@pytest.fixture(scope="session")
def node_packages() -> Path:
    """The folder whose node_modules has them: NODE_CLIENT_PACKAGES, or clients/typescript."""
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed")
    folder = Path(os.environ.get("NODE_CLIENT_PACKAGES") or CLIENT)
    if not (folder / "node_modules").is_dir():
        pytest.skip("the client's packages are not installed: run `npm ci` in clients/typescript")
    return folder
