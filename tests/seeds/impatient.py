"""
Brain, which asks for signs of life after a quarter of a second instead of half a minute.

    python -m tests.seeds.impatient serve ...

And who gives none is disconnected after three seconds instead of sixty.
"""

from __future__ import annotations

from brain.cli.main import main
from brain.message.channels import ChannelsFormat
from brain.message.cloud_agents import CloudAgentsFormat
from brain.message.mission_control import MissionControlFormat

PULSE_SECONDS, SILENCE_SECONDS = 0.25, 3.0

if __name__ == "__main__":
    MissionControlFormat.pulse_seconds = PULSE_SECONDS
    for wire_format in (ChannelsFormat, CloudAgentsFormat):
        wire_format.pulse_seconds = PULSE_SECONDS
        wire_format.silence_seconds = SILENCE_SECONDS
    main()
