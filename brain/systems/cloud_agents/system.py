"""What Code Cloud Agents registers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brain.database.schema_files import Schema
from brain.message.channel_schema import ChannelSchemas
from brain.system import System
from brain.systems.cloud_agents.wire_format import CloudAgentsFormat
from brain.systems.shared_tables.schemas import AGENTS, TASKS
from brain.systems.shared_tables.tasks.run_messages import RunSchema
from brain.web.websocket_endpoint import Profile

CHANNELS = ("tasks", "agents", "messages", "notifications", "presence")


SUMMARY = "What `/ws` sends, and agents, chats, notifications and presence"


class CloudAgents(System):
    """Agents, chats, notifications and presence."""

    name = "cloud_agents"
    summary = "agents, chats, notifications and presence on /ws?token=…"
    channel_schemas = (RunSchema(),)
    schemas = (TASKS, AGENTS, Schema("cloud_agents", Path(__file__).parent))

    def profiles(self, schemas: ChannelSchemas) -> Sequence[Profile]:
        wire_format = CloudAgentsFormat(schemas, "Connected to Cecelia Brain")
        bare = CloudAgentsFormat(schemas, greeting=None)
        return [
            Profile(wire_format, CHANNELS, parameter="token", bare_format=bare, summary=SUMMARY)
        ]
