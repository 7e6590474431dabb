"""What tac-webbuilder registers: feeds, which its schema defines in the database."""

from __future__ import annotations

from pathlib import Path

from brain.database.migrations import Schema
from brain.system import System


class Workflows(System):
    """Feeds of workflows, routes, queues and status."""

    name = "workflows"
    summary = "feeds of workflows, routes, queues and status on /ws/{feed} and /api/{feed}"
    schemas = (Schema("workflows", Path(__file__).parent),)
