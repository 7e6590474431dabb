"""The columns of a row, read from its JSON text when they are needed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from sys import getsizeof

import msgspec
import orjson

from brain.errors import RowNotShown
from brain.message.json_text import Text, is_unicode, split_object, string_of, text_of
from brain.message.timestamps import parse_timestamp

# By tracemalloc, of the two objects and of each value, beside the dictionary.
ROW_BYTES = 110
VALUE_BYTES = 60

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class Row(msgspec.Struct, gc=False, eq=False):
    """
    A row of a watched table. A column that the table does not have reads like one that is null.

    So does a value of another kind than the one that is read: tables that Brain did not create may
    have any type in any column. What is no object at all raises `RowNotShown`, which concerns the
    caller's message alone.
    """

    _text: str
    """A JSON object."""
    _columns: dict[str, Text] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._members()

    @property
    def cached_bytes(self) -> int:
        """How much memory it takes beside the text."""
        columns = self._columns
        return ROW_BYTES + (
            0 if columns is None else getsizeof(columns) + VALUE_BYTES * len(columns)
        )

    def names(self) -> Iterable[str]:
        return self._members()

    def text(self, name: str) -> str:
        """Return the JSON text of a column, `null` if the row does not have it."""
        found = self._members().get(name)
        return "null" if found is None else text_of(found)

    def exact(self, name: str) -> orjson.Fragment | None:
        """Return the value of a column for a message, as it is written; None for null."""
        text = self.text(name)
        return None if text == "null" else orjson.Fragment(text)

    def string(self, name: str) -> str | None:
        """Return a text, of a number the digits; None for what is neither, or no Unicode."""
        text = self.text(name)
        if text.startswith('"'):
            found = string_of(text)
            return found if "\\" not in text or is_unicode(found) else None
        return text if text[0] in "-0123456789" else None

    def number(self, name: str) -> orjson.Fragment | None:
        """Return a number for a message, with all its digits, also one that a text holds."""
        digits = self.text(name).strip('"')
        return orjson.Fragment(digits) if NUMBER.fullmatch(digits) else None

    def moment(self, name: str) -> datetime | None:
        """Return a timestamp; None also for one that clients cannot read, like `infinity`."""
        text = self.string(name)
        return None if text is None else parse_timestamp(text)

    def nested(self, name: str) -> Row | None:
        """Return the JSON object in a column; None if there is none."""
        text = self.text(name)
        return Row(text) if text.startswith("{") else None

    def _members(self) -> dict[str, Text]:
        if self._columns is None:
            try:
                self._columns = split_object(self._text)
            except ValueError as error:
                raise RowNotShown(str(error)) from error
        return self._columns


def key_of(row: str, columns: Iterable[str]) -> str:
    """Return the JSON of the primary key, as events have it, of a row with all its columns."""
    values = Row(row)
    return f"[{', '.join(values.text(name) for name in columns)}]"
