"""What a subscription asks for."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import to_jsonable_python

Snapshot = bool | Literal["exact"]


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows of which channel, and where to begin."""

    channel: str
    where: Mapping[str, Any] | None = None
    key: Any = None
    snapshot: Snapshot = False
    limit: int | None = None
    after: str | None = None
    """The cursor to begin after, if there is none of an earlier run."""
    since: float | None = None
    """Begin with what happened in the last so many seconds, likewise."""
    asked_at: float = field(default_factory=time.monotonic, compare=False, repr=False)
    """The seconds count from here, however long it takes to connect."""

    def frame(self, place: str | None, *, is_first: bool) -> dict[str, Any]:
        """Return the keys of `subscribe`, to go on after a place, or to begin."""
        frame = self._rows()
        if self.snapshot:
            frame["snapshot"] = self.snapshot
        if self.limit is not None:
            frame["limit"] = self.limit
        if place is not None:
            frame["after"] = place
        elif is_first and self.since is not None:
            frame["since"] = self.since + time.monotonic() - self.asked_at
        return frame

    @property
    def name(self) -> str:
        """Return the name of its cursor where none is given: one for each channel and filter."""
        rows = self._rows()
        channel = str(rows.pop("channel"))
        return f"{channel} {json.dumps(rows, sort_keys=True)}" if rows else channel

    def _rows(self) -> dict[str, Any]:
        rows: dict[str, Any] = {"channel": self.channel}
        if self.key is not None:
            values = self.key if isinstance(self.key, list | tuple) else [self.key]
            rows["key"] = to_jsonable_python(list(values))
        if self.where is not None:
            rows["where"] = to_jsonable_python(dict(self.where))
        return rows
