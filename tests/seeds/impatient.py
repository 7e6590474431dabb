"""
Brain with a heartbeat every quarter of a second instead of every half minute.

    python -m tests.seeds.impatient serve ...

A client that answers none is closed after three seconds instead of sixty.
"""

from __future__ import annotations

from brain.cli.main import main
from brain.systems.channels.wire_format import ChannelsFormat
from brain.systems.cloud_agents.wire_format import CloudAgentsFormat
from brain.systems.mission_control.wire_format import MissionControlFormat

HEARTBEAT_SECONDS, CLIENT_TIMEOUT_SECONDS = 0.25, 3.0

if __name__ == "__main__":
    MissionControlFormat.heartbeat_seconds = HEARTBEAT_SECONDS
    for wire_format in (ChannelsFormat, CloudAgentsFormat):
        wire_format.heartbeat_seconds = HEARTBEAT_SECONDS
        wire_format.client_timeout_seconds = CLIENT_TIMEOUT_SECONDS
    main()
