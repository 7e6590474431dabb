"""What Cecelia Brain registers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg
from starlette.routing import BaseRoute

from brain.message.base_format import BaseFormat
from brain.message.channel_schema import ChannelSchemas
from brain.system import System
from brain.systems.cecelia import api
from brain.systems.cecelia.samples import insert_samples
from brain.systems.shared_tables.schemas import TASKS
from brain.systems.shared_tables.tasks.rows import CHANNEL
from brain.systems.shared_tables.tasks.run_messages import RunSchema
from brain.web.pages import static_route
from brain.web.services import Services
from brain.web.websocket_endpoint import Profile

STATIC = Path(__file__).parent / "static"


class Cecelia(System):
    """Tasks as runs."""

    name = "cecelia"
    summary = "tasks as run_update, run_complete and run_failed on /ws, and a page at /"
    schemas = (TASKS,)
    channel_schemas = (RunSchema(),)
    links: Mapping[str, str] = {"tasks": "/api/brain/tasks"}
    front_page = STATIC / "index.html"
    first_examples: Mapping[str, str] = {
        "add two": (
            "INSERT INTO tasks (id) VALUES ('task-123'), ('task-124') ON CONFLICT DO NOTHING"
        ),
    }
    examples: Mapping[str, str] = {
        "start it": "UPDATE tasks SET status='running', updated_at=NOW() WHERE id='task-123'",
        "advance it": "UPDATE tasks SET progress=5 WHERE id='task-123'",
        "complete it": "UPDATE tasks SET status='completed', progress=11 WHERE id='task-123'",
        "fail another": (
            "UPDATE tasks SET status='failed', error='Build failed' WHERE id='task-124'"
        ),
    }

    def profiles(self, schemas: ChannelSchemas) -> Sequence[Profile]:
        return [
            Profile(
                BaseFormat(schemas, "Connected to Cecelia Brain"),
                (CHANNEL,),
                summary="Tasks as runs, rows of other watched tables, and published messages",
            )
        ]

    def routes(self, services: Services) -> Sequence[BaseRoute]:
        return [
            *api.routes(services),
            static_route(
                "/tasks.js",
                STATIC / "tasks.js",
                "text/javascript",
                id="getTasksScript",
                summary="The script of the page of tasks",
                tag=self.name,
            ),
        ]

    async def insert_samples(self, connection: asyncpg.Connection) -> str | None:
        return await insert_samples(connection)
