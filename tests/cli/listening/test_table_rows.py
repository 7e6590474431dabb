"""The rows that a live table keeps, and how often it draws them."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Any

from rich.console import Console

from brain.cli.listening.live_table import BETWEEN_DRAWINGS_SECONDS, LiveTable
from brain.cli.listening.table_rows import FADE_SECONDS, LONGEST_CELL, TableRows
from brain.cli.listening.table_view import TableView, widths_for
from brain.client import Change, Status


def change(op: Any, id: int | None = None, **row: Any) -> Change[Any]:
    return Change(op, "orders", key=None if id is None else [id], row={"id": id, **row})


def rows_with(*ids: int, has_snapshot: bool = True, most: int = 1000) -> TableRows:
    rows = TableRows("orders", has_snapshot=has_snapshot, most=most)
    for id in ids:
        rows.apply(change("snapshot", id, status="open"), 0.0)
    return rows


def ids(rows: TableRows, most: int = 1000) -> list[str]:
    return [row.cells["id"] for row in rows.latest(most)]


def test_the_rows_that_changed_last_are_shown_in_the_order_in_which_they_came() -> None:
    rows = rows_with(1, 2, 3, 4)
    rows.apply(change("update", 2, status="paid"), 1.0)
    assert ids(rows) == ["1", "2", "3", "4"]
    assert ids(rows, 2) == ["2", "4"]
    assert ids(rows, 0) == []


def test_only_cells_that_differ_are_new() -> None:
    rows = rows_with(1)
    assert not rows.is_fading()
    rows.apply(change("update", 1, status="paid"), 5.0)
    (row,) = rows.latest(1)
    assert row.changed_at == {"status": 5.0}
    assert rows.is_fading()
    rows.fade(5.0 + FADE_SECONDS)
    assert not rows.is_fading()


def test_a_row_that_is_gone_stays_for_a_moment_and_counts_no_more() -> None:
    rows = rows_with(1, 2)
    rows.apply(change("delete", 1), 5.0)
    assert (ids(rows), len(rows)) == (["2", "1"], 1) or (ids(rows), len(rows)) == (["1", "2"], 1)
    rows.fade(5.0 + FADE_SECONDS)
    assert ids(rows) == ["2"]
    rows.apply(change("insert", 1), 9.0)
    assert ids(rows) == ["2", "1"]


def test_after_a_reset_the_rows_stay_until_those_of_the_snapshot_have_come() -> None:
    rows = rows_with(1, 2, 3)
    rows.apply(change("reset"), 1.0)
    rows.apply(change("snapshot", 2), 1.0)
    rows.apply(change("insert", 4), 1.0)
    assert ids(rows) == ["1", "2", "3", "4"]
    rows.apply(change("snapshot-end"), 1.0)
    assert ids(rows) == ["2", "4"]


def test_without_a_snapshot_a_reset_or_a_truncate_removes_the_rows() -> None:
    for op in ("reset", "truncate"):
        rows = rows_with(1, 2, has_snapshot=False)
        rows.apply(change(op), 1.0)
        assert (ids(rows), rows.is_fading()) == ([], False)


def test_its_memory_is_bounded() -> None:
    rows = rows_with(*range(5000), most=100)
    assert len(rows) == 100
    assert rows.let_go == 4900
    for id in range(5000, 9000):
        rows.apply(change("insert", id, status="x" * 10_000), 1.0)
    assert len(rows._rows) == len(rows._fading) == 100
    assert all(len(row.cells["status"]) == LONGEST_CELL for row in rows.latest(100))


def test_columns_that_do_not_fit_are_left_out_from_the_right() -> None:
    rows = rows_with(1)
    rows.apply(change("insert", 2, status="open", note="漢字" * 50), 0.0)
    latest = rows.latest(9)
    assert list(widths_for(["id", "status", "note"], latest, 80)) == ["id", "status", "note"]
    assert widths_for(["id", "status", "note"], latest, 14) == {"id": 2, "status": 6}
    assert list(widths_for(["id", "status", "note"], latest, 1)) == ["id"]


def test_nothing_is_wider_than_the_terminal() -> None:
    rows = rows_with(*range(30))
    rows.apply(change("insert", 99, status="漢字" * 50, note="y" * 100), 0.0)
    status = Status("offline", "the connection broke " * 9)
    for width in (1, 5, 20, 80):
        console = Console(file=io.StringIO(), width=width, height=10)
        view = TableView([rows], status, ["a note " * 30], now=0.0)
        lines = console.render_lines(view, console.options.update(height=10))
        assert all(sum(part.cell_length for part in line) <= width for line in lines)


async def test_a_thousand_changes_a_second_are_drawn_at_most_ten_times_a_second() -> None:
    drawn = 0

    class Counting(LiveTable):
        def _view(self, *, is_final: bool = False) -> TableView:
            nonlocal drawn
            drawn += 1
            return super()._view(is_final=is_final)

    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    table = Counting(["orders"], has_snapshot=True, console=console)
    began = time.monotonic()
    async with table.drawn():
        for id in range(500):
            await table.show(change("insert", id))
            await asyncio.sleep(0.001)
    most = (time.monotonic() - began) / BETWEEN_DRAWINGS_SECONDS + 3
    assert 1 < drawn <= most


async def test_an_error_while_drawing_ends_the_command() -> None:
    class Broken(LiveTable):
        def _view(self, *, is_final: bool = False) -> TableView:
            if not is_final:
                raise OSError("the terminal is gone")
            return super()._view(is_final=is_final)

    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    table = Broken(["orders"], has_snapshot=True, console=console)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with table.drawn():
        table.when_closed(ended)
        await asyncio.wait((ended,), timeout=10)
    assert isinstance(ended.exception(), OSError)
