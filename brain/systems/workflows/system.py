"""What tac-webbuilder registers: feeds, which its schema defines in the database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.routing import BaseRoute

from brain.database.schema_files import Schema
from brain.feeds import routes as feeds
from brain.system import System
from brain.web.services import Services


class Workflows(System):
    """Feeds of workflows, routes, queues and status."""

    name = "workflows"
    summary = "feeds of workflows, routes, queues and status on /ws/{feed} and /api/{feed}"
    schemas = (Schema("workflows", Path(__file__).parent),)

    def routes(self, services: Services) -> Sequence[BaseRoute]:
        """Return the addresses of feeds below `/api/v1`, where its own hooks look for them."""
        return feeds.routes(services, ws="/api/v1/ws", api="/api/v1", system=self.name)
