"""A role that may write to watched tables and has no rights on the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from brain.message.event import Event
from tests.database.log_reading import events_after, reading
from tests.postgres import as_role, ordinary_role

THINGS = """
    CREATE TABLE public.things (
        id bigint PRIMARY KEY, number int, name text, document jsonb, letter "char", at timestamptz,
        secret text
    );
    ALTER TABLE public.things OWNER TO {owner};
    SELECT brain.watch('public.things', 'things', '{{id,number,name,document,letter,at}}');
"""
GRANTS = """
    GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON public.tasks, public.things TO {role};
    CREATE SCHEMA own AUTHORIZATION {role};
"""
PUBLISH = """
    GRANT USAGE ON SCHEMA brain TO {role};
    GRANT EXECUTE ON FUNCTION brain.publish TO {role};
"""


class Stranger:
    """The role, with an administrator of its database and the owner of the table `things`."""

    def __init__(self, url: str, role: str, owner: str, admin: asyncpg.Connection) -> None:
        self.role = role
        self.admin = admin
        self.admin_url = url
        self._owner = owner
        self._sessions = AsyncExitStack()

    async def session(self) -> asyncpg.Connection:
        """Return a new session of the role."""
        return await self._connected(self.role)

    async def owner(self) -> asyncpg.Connection:
        return await self._connected(self._owner)

    async def let_publish(self) -> None:
        await self.admin.execute(PUBLISH.format(role=self.role))

    async def events(self, *statements: str) -> list[Event]:
        """Return the logged events of `statements`, each run in a new session of the role."""
        async with reading(self.admin_url) as log:
            start = await log.tick()
            for statement in statements:
                await (await self.session()).execute(statement)
            return await events_after(log, start)

    async def leave(self) -> None:
        await self._sessions.aclose()

    async def _connected(self, role: str) -> asyncpg.Connection:
        session: asyncpg.Connection = await asyncpg.connect(as_role(self.admin_url, role))
        self._sessions.push_async_callback(session.close)
        return session


@asynccontextmanager
async def strange(server: str, url: str) -> AsyncIterator[Stranger]:
    """Yield a stranger to the database at `url`, and drop its roles afterwards."""
    async with ordinary_role(server) as (owner, _), ordinary_role(server) as (role, _):
        admin = await asyncpg.connect(url)
        await admin.execute(THINGS.format(owner=owner) + GRANTS.format(role=role))
        stranger = Stranger(url, role, owner, admin)
        try:
            yield stranger
        finally:
            await stranger.leave()
            await admin.close()
