"""The columns of a row, read from its JSON text when they are needed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

import orjson

from brain.errors import RowNotShown
from brain.message.json_text import Text, is_unicode, split_object, string_of, text_of
from brain.message.timestamps import parse_timestamp

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class Row:
    """
    A row of a watched table. A column that the table does not have reads like one that is null.

    What a method cannot return raises `RowNotShown`, which concerns the caller's message alone.
    """

    __slots__ = ("_columns", "_text")

    def __init__(self, text: str) -> None:
        """`text` is a JSON object."""
        self._text = text
        self._columns: dict[str, Text] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._members()

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
        """Return a text; of a number the digits."""
        text = self.text(name)
        if text == "null":
            return None
        if text.startswith('"'):
            found = string_of(text)
            if "\\" in text and not is_unicode(found):
                raise RowNotShown(f"{name} has half of a surrogate pair")
            return found
        if text[0] in "-0123456789":
            return text
        raise RowNotShown(f"{name} should be a string")

    def number(self, name: str) -> orjson.Fragment | None:
        """Return a number for a message, with all its digits; a text may hold it."""
        text = self.text(name)
        if text == "null":
            return None
        digits = text.strip('"')
        if not NUMBER.fullmatch(digits):
            raise RowNotShown(f"{name} should be a number")
        return orjson.Fragment(digits)

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
