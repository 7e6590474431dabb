"""Rows as the program wants them: as they come, or as instances of a model."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from brain.client.change import Change, Op
from brain.client.errors import InvalidRow
from brain.client.exact_json import with_floats
from brain.client.link import Frame

Row = TypeVar("Row")
OPS = frozenset(get_args(Op))


def pieces(frame: Frame) -> list[Frame]:
    """Return the changes of a frame: the rows of a page are one each."""
    if frame.get("op") not in OPS:
        return []
    if frame["op"] != "snapshot":
        return [frame]
    page = {"op": "snapshot", "channel": frame["channel"]}
    return [{**page, **row} for row in frame["rows"]]


class Rows(Generic[Row]):
    """Makes changes of frames."""

    def __init__(self, channel: str, model: Any = None, *, decimals: bool = False) -> None:
        """`model` is anything of which pydantic makes a TypeAdapter."""
        self._decimals = decimals
        self._channel = channel
        self._adapter: TypeAdapter[Row] | None = None if model is None else TypeAdapter(model)

    @property
    def are_of_a_model(self) -> bool:
        return self._adapter is not None

    @property
    def need_decimals(self) -> bool:
        """Return True if numbers have to be parsed as Decimals."""
        return self._decimals or self.are_of_a_model

    def change(self, piece: Frame) -> Change[Row]:
        """Return a piece of a frame as a change; raises InvalidRow."""
        return Change(
            op=piece["op"],
            channel=piece.get("channel", self._channel),
            key=self._plain(piece.get("key")),
            row=self._row(piece),
            old=self._plain(piece.get("old")),
            omitted=tuple(piece.get("omitted", ())),
            type=piece.get("type"),
            data=self._plain(piece.get("data")),
            private=piece.get("private", False),
            at=piece.get("at"),
            cursor=piece.get("cursor"),
            txid=piece.get("txid"),
            last=piece.get("last", False),
            reason=piece.get("reason"),
        )

    def _row(self, piece: Frame) -> Row | None:
        row: Row | None = piece.get("row")
        if row is None or self._adapter is None:
            return row
        try:
            return self._adapter.validate_python(row)
        except Exception as error:  # a validator of the program may raise anything
            problem = problem_of(error)
            if piece.get("omitted"):
                problem += f" (Brain left out {', '.join(piece['omitted'])})"
            key = self._plain(piece.get("key"))
            raise InvalidRow(piece.get("channel", self._channel), key, problem) from error

    def _plain(self, value: Any) -> Any:
        return value if self._decimals or self._adapter is None else with_floats(value)


def problem_of(error: Exception) -> str:
    """Return what a row lacks, for a person."""
    if not isinstance(error, ValidationError):
        return f"its validation failed: {error!r}"
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'row'}: {each['msg']}"
        for each in error.errors(include_url=False, include_context=False)
    )
