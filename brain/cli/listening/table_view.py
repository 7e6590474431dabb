"""A live table as something that rich prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from brain.cli.listening.exact_text import visible
from brain.cli.listening.table_rows import FADE_SECONDS, TableRow, TableRows
from brain.client import Status

WIDEST_CELL = 40
NARROWEST_CELL = 6
GAP = 2
# Of a table: its names, and a line below.
HEAD_LINES = 2
STYLES = {
    "live": "green",
    "catching-up": "yellow",
    "connecting": "yellow",
    "offline": "red",
    "closed": "red",
}


@dataclass(frozen=True)
class TableView:
    """The rows that changed last, as many as there is room for, above a line of status."""

    tables: Sequence[TableRows]
    status: Status
    notes: Sequence[str]
    """The last messages and resets, the newest last."""
    now: float
    is_final: bool = False
    """True for what stays after the end: nothing is highlighted."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        lines = [self._status_line(), *[Text(note, style="dim") for note in self.notes]]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        room = (options.height or console.height) - len(lines)
        each = max(room // max(len(self.tables), 1), HEAD_LINES + 1)
        yield Group(*(self._table(rows, each - HEAD_LINES, width) for rows in self.tables), *lines)

    def _status_line(self) -> Text:
        status = self.status
        line = Text(f"● {status.state}", style=STYLES[status.state])
        if status.why:
            line.append(f": {visible(status.why)}")
        if status.advice:
            line.append(f" ({visible(status.advice)})")
        changes = sum(rows.changes for rows in self.tables)
        line.append(f"  {changes:,} changes", style="default")
        return line

    def _table(self, rows: TableRows, most: int, width: int) -> RenderableType:
        latest = rows.latest(most)
        names = list(dict.fromkeys(name for row in latest for name in row.cells))
        widths = widths_for(names, latest, width)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_edge=False)
        for name, each in widths.items():
            table.add_column(
                Text(visible(name)), width=each, no_wrap=True, overflow="ellipsis", style="default"
            )
        for row in latest:
            table.add_row(*(self._cell(row, name) for name in widths))
        head = Text(visible(rows.channel), style="bold", no_wrap=True, overflow="ellipsis")
        head.append(f"  {counted(rows, len(latest))}", style="dim")
        if len(widths) < len(names):
            head.append(f"  {len(names) - len(widths)} columns do not fit", style="dim")
        return Group(head, table)

    def _cell(self, row: TableRow, name: str) -> Text:
        text = Text(row.cells.get(name, ""))
        if self.is_final:
            return text
        if row.gone_at is not None:
            text.stylize("red strike")
        elif is_recent(row.changed_at.get(name), self.now):
            text.stylize("bold reverse")
        elif is_recent(row.came_at, self.now):
            text.stylize("green")
        return text


def is_recent(moment: float | None, now: float) -> bool:
    return moment is not None and moment + FADE_SECONDS > now


def counted(rows: TableRows, shown: int) -> str:
    """Return how many rows there are, and how many of them are shown."""
    there = len(rows)
    if rows.let_go:
        return f"more than {there:,} rows, of which the {shown:,} that changed last are shown"
    if shown < there:
        return f"{there:,} rows, of which the {shown:,} that changed last are shown"
    return f"{there:,} rows" if there != 1 else "1 row"


def widths_for(names: Sequence[str], rows: Sequence[TableRow], room: int) -> dict[str, int]:
    """Return how wide each column is, of those from the left that fit."""
    widths: dict[str, int] = {}
    for name in names:
        texts = [visible(name), *(row.cells.get(name, "") for row in rows)]
        wanted = min(max(map(cell_len, texts)), WIDEST_CELL)
        width = min(wanted, room)
        if widths and width < min(wanted, NARROWEST_CELL):
            break
        widths[name] = max(width, 1)
        room -= width + GAP
    return widths
