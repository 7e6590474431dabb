"""The variants that `bench.writers` compares: triggers, and the program that they notify."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from bench.client import WITHOUT_PINGS, connected_drain
from bench.peer import CHANNEL
from bench.server import Server
from tests.end_to_end.brain import running_brain

TRIGGERS = f"""
CREATE FUNCTION bench_empty() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$;
CREATE FUNCTION bench_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{CHANNEL}', to_jsonb(NEW)::text);
    RETURN NULL;
END $$;
CREATE TRIGGER bench_empty AFTER INSERT OR UPDATE OR DELETE ON tasks
    FOR EACH ROW EXECUTE FUNCTION bench_empty();
CREATE TRIGGER bench_notify AFTER INSERT OR UPDATE OR DELETE ON tasks
    FOR EACH ROW EXECUTE FUNCTION bench_notify();
"""

PARKED = {"BRAIN_BUSY_FROM_RATE": "1e9", "BRAIN_CALM_BELOW_RATE": "1e9"}


@dataclass(frozen=True)
class Variant:
    name: str
    triggers: str
    """A regular expression for the names of the enabled triggers."""
    listens: bool = False
    """True if a connection listens, as that of a program that relies on NOTIFY does."""
    node: Mapping[str, str] | None = field(default=None, hash=False)
    """The settings of a Brain that runs with one client; None for no Brain."""

    async def enable(self, server: Server) -> None:
        """Enable the triggers of this variant on `tasks`, and disable all others."""
        rows = await server.admin.fetch(
            "SELECT tgname, tgname ~ $1 AS is_on FROM pg_trigger"
            " WHERE tgrelid = 'tasks'::regclass AND NOT tgisinternal",
            self.triggers,
        )
        assert any(row["is_on"] for row in rows) or self is NOTHING, self.triggers
        for row in rows:
            verb = "ENABLE" if row["is_on"] else "DISABLE"
            await server.admin.execute(f'ALTER TABLE tasks {verb} TRIGGER "{row["tgname"]}"')

    @asynccontextmanager
    async def in_effect(self, server: Server, folder: Path) -> AsyncIterator[None]:
        """Enable the triggers, and run the listener or Brain, until the context ends."""
        await self.enable(server)
        async with AsyncExitStack() as stack:
            if self.listens:
                connection = await asyncpg.connect(server.url)
                stack.push_async_callback(connection.close)
                await connection.add_listener(CHANNEL, lambda *_: None)
            if self.node is not None:
                settings = {**self.node, **WITHOUT_PINGS}
                brain = await stack.enter_async_context(
                    running_brain(folder, "--database-url", server.url, **settings)
                )
                await stack.enter_async_context(connected_drain(brain.port))
            yield


NOTHING = Variant("no trigger", "^$")
EMPTY = Variant("empty trigger", "^bench_empty$")
NOTIFY = Variant("pg_notify", "^bench_notify$", listens=True)
BUSY = Variant("Brain, busy node", "^(!brain|brain_)", node={})
NEVER_BUSY = Variant("Brain, node never busy", "^(!brain|brain_)", node=PARKED)
ALONE = Variant("Brain, no node", "^(!brain|brain_)")
CAPTURE_ONLY = Variant("Brain, a table of yours", "^!brain", node={})
# Parts of Brain, by the names of the triggers that brain.watch makes.
CAPTURE = Variant("  only capture", "^!brain")
FILL_IN = Variant("  only fill-in", "^brain_(complete|touch)")
