"""The rows that a client of brain.v1 keeps of one subscription."""

from __future__ import annotations

import json
from typing import Any

from brain.message.cursor import Cursor
from tests.session.v1_client import V1Client


class Replica:
    """Applies the frames of a subscription, and knows from where the client may resume."""

    def __init__(self, sub: int) -> None:
        self.sub = sub
        self.rows: dict[str, Any] = {}
        self.is_live = False
        self.ops: list[str] = []
        """Those of all frames so far."""
        self.is_within_snapshot = True
        """Until it has all rows: no frame before that says a place."""
        self._place: tuple[int, int] = (0, 0)
        """What happened up to there has come."""

    def apply(self, frame: dict[str, Any]) -> None:
        if frame.get("sub") != self.sub or "op" not in frame:
            return
        self.ops.append(frame["op"])
        self._change_rows(frame)
        self._move_on(frame)
        match frame["op"]:
            case "reset":
                self.is_live, self.is_within_snapshot = False, True
            case "snapshot-end":
                self.is_within_snapshot = False
            case "live":
                self.is_live = True
            case _ if self.is_within_snapshot:
                assert "cursor" not in frame, frame

    def _move_on(self, frame: dict[str, Any]) -> None:
        """Check that a client that resumes from the cursor before gets this event."""
        if frame["op"] == "reset":
            self._place = (0, 0)
        if "cursor" in frame:
            place = Cursor.parse(frame["cursor"]).place
            is_event = "txid" in frame and frame["op"] != "commit"
            assert place > self._place or (place == self._place and not is_event), frame
            self._place = place

    def _change_rows(self, frame: dict[str, Any]) -> None:
        match frame["op"]:
            case "insert" | "update":
                self.rows[json.dumps(frame["key"])] = frame["row"]
            case "delete" | "leave":
                self.rows.pop(json.dumps(frame["key"]), None)
            case "truncate" | "reset":
                self.rows.clear()
            case "snapshot":
                self.rows.update((json.dumps(one["key"]), one["row"]) for one in frame["rows"])

    async def until_live(self, client: V1Client) -> None:
        while not self.is_live:
            self.apply(await client.receive())

    async def until_quiet(self, client: V1Client, transaction_id: str) -> None:
        """Apply what comes until all of a transaction has been sent, and the rows are whole."""
        id = await client.send("until", txid=transaction_id)
        while (frame := await client.receive()).get("id") != id:
            self.apply(frame)
        assert frame["type"] == "until", frame
        await self.until_live(client)
