"""The rows of a watched table, and the cursor after which they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from brain.description.routes import DescribedRoute, Operation, Right, path_parameter
from brain.message.channel_schema import ChannelSchemas
from brain.message.number_strings import with_number_strings
from brain.message.snapshot import Snapshot, parts_of
from brain.web.parameters import NUMBERS
from brain.web.requests import readable_by, wants_number_strings
from brain.web.services import Services


class ChannelSnapshot(BaseModel):
    """The rows of the table on a channel."""

    channel: str
    cursor: str
    """What happens after it is what changes these rows."""
    rows: list[dict[str, Any]]
    """In no particular order; each has its watched columns."""


SNAPSHOT = Operation(
    id="getSnapshot",
    summary="The rows of the table on a channel, and the cursor after which they change",
    right=Right.READING,
    parameters=(path_parameter("channel", "The channel on which the table is watched."), NUMBERS),
    responses={200: ChannelSnapshot},
    errors=(400, 401, 403, 404, 413, 503),
)


def routes(services: Services) -> list[DescribedRoute]:
    """Return the endpoint, which reads through the pool in the request's state."""

    async def snapshot(request: Request) -> Response:
        channel: str = request.path_params["channel"]
        try:
            has_number_strings = wants_number_strings(request.query_params)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        own = request.state.access.rows(channel)
        rows = {} if own is None else {channel: own}
        found = await services.snapshots.read(request.state.pool, frozenset({channel}), rows)
        if channel not in found.tables:
            raise HTTPException(404, f"no table is watched on the channel {channel}")
        pieces = body(found, channel, services.schemas, has_number_strings=has_number_strings)
        return SnapshotResponse(
            pieces, found.read_seconds, services.settings.unread_timeout_seconds
        )

    guarded = readable_by(services.authority, "channel", snapshot)
    return [DescribedRoute("/api/brain/snapshot/{channel}", guarded, SNAPSHOT)]


class SnapshotResponse(StreamingResponse):
    """Ends unfinished if the client does not read it, or a piece of it, in time."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        read_seconds: float,
        unread_timeout_seconds: float,
    ) -> None:
        super().__init__(
            pieces, headers={"cache-control": "no-store"}, media_type="application/json"
        )
        self._pieces = pieces
        self._read_seconds = read_seconds
        self._unread_timeout_seconds = unread_timeout_seconds

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._unread_timeout_seconds):
                await send(message)

        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._read_seconds):
                    await super().stream_response(send_in_time)
        finally:
            await self._pieces.aclose()  # it holds the rows, and would until it is collected


async def body(
    snapshot: Snapshot, channel: str, schemas: ChannelSchemas, *, has_number_strings: bool
) -> AsyncGenerator[bytes, None]:
    """Yield the response in pieces, with a row per line."""
    name, cursor = orjson.dumps(channel), orjson.dumps(str(snapshot.cursor))
    yield b'{\n  "channel": %b,\n  "cursor": %b,\n  "rows": [' % (name, cursor)
    separator = "\n    "
    for part in parts_of(snapshot):
        rows = schemas.show_rows(channel, part.rows)
        if has_number_strings:
            rows = [with_number_strings(row) for row in rows]
        if rows:
            yield (separator + ",\n    ".join(rows)).encode()
            separator = ",\n    "
    yield b"]\n}\n" if separator == "\n    " else b"\n  ]\n}\n"
