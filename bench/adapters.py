"""How the peers of `bench.peers` get the changes of a table, and how their clients subscribe."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

from bench.dialects import Dialect, V1Dialect, WebSocketDialect, receive_until
from bench.peer import CHANNEL
from tests.raw_websocket import client_frame, receive_handshake

# The columns that Brain sends of a task.
MESSAGE = """
json_build_object('id', NEW.id, 'status', NEW.status, 'agent', NEW.agent, 'progress', NEW.progress,
                  'started_at', NEW.started_at, 'completed_at', NEW.completed_at,
                  'error', NEW.error)
"""

# A copy of `tasks`, of which each changed row is handed to the peer.
TABLE = """
CREATE TABLE {table} (LIKE tasks INCLUDING ALL);
INSERT INTO {table} SELECT * FROM tasks;
CREATE FUNCTION hand_over_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {statements}
    RETURN NULL;
END $$;
CREATE TRIGGER hand_over AFTER UPDATE ON {table}
    FOR EACH ROW EXECUTE FUNCTION hand_over_{table}();
ANALYZE {table}
"""

# As Centrifugo's documentation has it, with a notification in place of the wait for the next poll.
OUTBOX = """
CREATE TABLE centrifugo_outbox (
    id bigserial PRIMARY KEY, method text NOT NULL, payload jsonb NOT NULL,
    partition integer NOT NULL DEFAULT 0, created_at timestamptz NOT NULL DEFAULT now()
)
"""
INTO_OUTBOX = f"""
INSERT INTO centrifugo_outbox (method, payload)
VALUES ('publish', jsonb_build_object('channel', 'changes', 'data', {MESSAGE}));
PERFORM pg_notify('centrifugo_outbox', '0');
"""


class CentrifugoDialect(WebSocketDialect):
    """A WebSocket of Centrifugo's JSON protocol with one subscription."""

    def __init__(self, channel: str) -> None:
        super().__init__("/connection/websocket", is_greeted=False)
        commands = ({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": channel}})
        self._commands = client_frame("\n".join(map(json.dumps, commands)).encode())

    def begin(self, connection: socket.socket) -> bytes:
        rest = receive_handshake(connection)
        connection.sendall(self._commands)
        return rest

    def finish(self, connection: socket.socket, received: bytes) -> None:
        answers = receive_until(connection, received, lambda received: b'"id":2' in received)
        assert b'"error"' not in answers, answers


@dataclass(frozen=True)
class Adapter:
    """A kind of peer."""

    dialect: Dialect
    statements: str = ""
    """What runs in PL/pgSQL for a changed row; none for Brain, which has its own triggers."""
    setup: str = ""
    """What the statements need, and the peer when it starts."""
    start: str | None = None
    """What precedes the row in a message in which its columns occur several times."""

    def table_for(self, kind: str) -> str:
        return f"{kind}_tasks" if self.statements else "tasks"

    def sql_for(self, kind: str) -> str:
        """Return what makes the table, its trigger and what they need; empty for Brain."""
        if not self.statements:
            return ""
        table = TABLE.format(table=self.table_for(kind), statements=self.statements)
        return f"{self.setup};{table}" if self.setup else table


def notifying(channel: str, path: str) -> Adapter:
    """Return a peer that forwards the payloads of NOTIFY to clients on a path."""
    statements = f"PERFORM pg_notify('{channel}', {MESSAGE}::text);"
    return Adapter(WebSocketDialect(path, is_greeted=False), statements)


ADAPTERS = {
    # Any server that listens to the channel `changes` and sends what comes to clients of /ws.
    "bare": notifying(CHANNEL, "/ws"),
    "eventserv": notifying("eventserv", "/listen/eventserv"),
    "centrifugo": Adapter(CentrifugoDialect("changes"), INTO_OUTBOX, OUTBOX),
}

BRAIN = Adapter(V1Dialect("/ws/v1", "tasks"), start='"row":')
