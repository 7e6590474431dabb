from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def node_packages() -> Path:
    return Path(os.environ["NODE_CLIENT_PACKAGES"])
