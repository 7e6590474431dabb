"""What routes are built with."""

from __future__ import annotations

from dataclasses import dataclass, field

from brain.auth.policy import Authority
from brain.auth.tickets import Tickets
from brain.database.snapshot import SnapshotReader
from brain.listener.batch_source import BatchSource
from brain.message.channel_schema import ChannelSchemas
from brain.presence.cluster import Cluster
from brain.presence.tracker import PresenceTracker
from brain.problems import Problems
from brain.session.draining import Draining
from brain.session.session import SessionContext
from brain.settings import Settings
from brain.transport.handshake import Handshake


@dataclass(frozen=True, kw_only=True)
class Services:
    """
    The parts of a running Brain that the routes of the core and of the systems share.

    What depends on a running event loop is in the request's state: `pool`, `sources`, `feeds`,
    `feed_reader`.
    """

    settings: Settings
    database_url: str
    schemas: ChannelSchemas
    source: BatchSource
    authority: Authority
    tickets: Tickets
    handshake: Handshake
    sessions: SessionContext
    draining: Draining
    """Whether this process stops."""
    presence: PresenceTracker
    """Who is connected to this process."""
    cluster: Cluster
    """Who is connected to any process."""
    snapshots: SnapshotReader
    problems: Problems = field(default_factory=Problems)
