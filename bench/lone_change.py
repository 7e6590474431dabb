"""
Measure how long a change takes from the hub to the socket: one that comes alone, and one of many.

    python -m bench.lone_change [--changes 200]

After 20 ms of rest the processor's caches hold other things, and the same code takes several times
as long as in a row of changes. Each client, of one wire format, has a hub of its own; they take
turns. The clock starts when the hub is given the batch, and stops when it calls the client's
socket. All of it is in this process, without a database.
"""

from __future__ import annotations

import argparse
import gc
import platform
import socket
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

from brain.hub.hub import Hub
from brain.message.base_format import BaseFormat
from brain.message.channel_schema import ChannelSchemas
from brain.message.cursor import Cursor
from brain.message.encodings import encoding_of
from brain.message.event import Batch, Event, Operation
from brain.message.matching import Topic
from brain.message.subscription_set import subscription_set
from brain.message.v1_format import V1
from brain.message.wire_format import WireFormat
from brain.systems.channels.wire_format import ChannelsFormat
from brain.systems.cloud_agents.wire_format import CloudAgentsFormat
from brain.systems.mission_control.wire_format import MissionControlFormat
from brain.systems.shared_tables.tasks.run_messages import RunSchema
from brain.transport.websocket_frames import WEBSOCKET_FRAMING

REST_SECONDS = 0.02
WARM_UP = 300

STATES = ("idle", "stopped")
ROWS: dict[str, Callable[[int], str]] = {
    "tasks": lambda number: (
        f'{{"id" : "1", "title" : "Task 1", "agent" : "dev", "status" : "running",'
        f' "progress" : {number}, "payload" : {{"total_steps" : 8, "step_name" : "Reading"}},'
        ' "started_at" : "2026-02-06T01:30:00.123456+00:00", "completed_at" : null,'
        ' "updated_at" : "2026-02-06T01:30:00.123456+00:00", "error" : null}'
    ),
    "agents": lambda number: (
        f'{{"id" : "1", "name" : "Dev", "status" : "{STATES[number % 2]}", "progress" : {number},'
        ' "current_task" : "deploy", "error" : null, "health" : {"health" : "good"},'
        ' "heartbeat_at" : "2026-02-06T01:30:00+00:00"}'
    ),
}
ROWS["orders"] = ROWS["tasks"]

SCHEMAS = ChannelSchemas([RunSchema()])
CLIENTS: dict[str, tuple[WireFormat, Topic]] = {
    "/ws, tasks": (BaseFormat(SCHEMAS), Topic("tasks")),
    "/ws, any other table": (BaseFormat(SCHEMAS), Topic("orders")),
    "/ws/connect, tasks": (ChannelsFormat(), Topic("tasks")),
    "/ws/connect, agents": (ChannelsFormat(), Topic("agents")),
    "/ws?token=, agents": (CloudAgentsFormat(SCHEMAS), Topic("agents")),
    "/, agents": (MissionControlFormat(), Topic("agents")),
    "brain.v1, a channel": (V1, Topic("tasks")),
    "brain.v1, a row": (V1, Topic("tasks", "1")),
}


class Client:
    """A hub with one subscriber, of which the time of each write is noted."""

    def __init__(self, wire_format: WireFormat, topic: Topic) -> None:
        self._channel = topic.channel
        self._row = ROWS[topic.channel]
        self._hub = Hub(2**26, 900.0, SCHEMAS)
        self._number = 0
        self._sending, self._receiving = socket.socketpair()
        self._sent_at = 0
        self.write = self._sending.sendall
        begin = Cursor(0, 1, 0)
        self._hub.deliver(Batch((), begin, follows=False, ticks=(begin,)))
        encoding = encoding_of(wire_format, WEBSOCKET_FRAMING)
        topics = subscription_set(frozenset({topic}))
        self._hub.resume(self._hub.subscribe(encoding, topics, self, print))

    def send_now(self, frames: bytes) -> int:
        self._sent_at = time.perf_counter_ns()
        return self._sending.send(frames)

    def microseconds(self, rest_seconds: float) -> float:
        """Return the time of one change after a rest."""
        self._number += 1
        number = self._number
        cursor = Cursor(number, 1, number)
        former, row = self._row(number - 1), self._row(number)
        what = *cursor, datetime.now(UTC), self._channel, Operation.UPDATE, '["1"]', row, former
        event = Event(*what, size_bytes=900, transaction_id=number, ends=number)
        batch = Batch((event,), cursor)
        if rest_seconds:
            time.sleep(rest_seconds)
        begun = time.perf_counter_ns()
        self._hub.deliver(batch)
        self._receiving.recv(2**16)
        assert self._sent_at > begun, "it was not sent"
        return (self._sent_at - begun) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--changes", type=int, default=200)
    changes: int = parser.parse_args().changes
    clients = {name: Client(*each) for name, each in CLIENTS.items()}
    for client in clients.values():
        for _ in range(WARM_UP):
            client.microseconds(0)
    gc.disable()
    alone: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(changes):
        for name, client in clients.items():
            alone[name].append(client.microseconds(REST_SECONDS))
    print(f"Python {platform.python_version()}; us from the hub to the socket")
    print(f"{'one client':<24}{'alone':>8}{'in a row':>10}")
    for name, client in clients.items():
        in_a_row = [client.microseconds(0) for _ in range(changes * 5)]
        print(
            f"{name:<24}{statistics.median(alone[name]):>8.0f}{statistics.median(in_a_row):>10.1f}"
        )


if __name__ == "__main__":
    main()
