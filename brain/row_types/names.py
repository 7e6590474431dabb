"""Names of types and fields for the names of a database, which may have any characters."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count

from brain.problems import printable
from brain.row_types.model import Catalog, CompositeType, EnumType, TypeName, WatchedTable

NO_WORD = re.compile(r"[\W_]+")
DEFAULT_SCHEMA = "public"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of types by what they are of: a table and the type of its rows have one name."""

    tables: Mapping[TypeName, str]
    types: Mapping[TypeName, str]
    """Of enums and composite types."""


def names_for(catalog: Catalog, reserved: Collection[str]) -> Names:
    """
    Return a name for each table, enum and composite type, none of them in `reserved`.

    A table is named before a type, and what is in the schema public before others; of two that
    would have the same name, the second has its schema in front, or else a number behind.
    """
    taken = set(reserved)

    def given(named: Iterable[WatchedTable | EnumType | CompositeType]) -> dict[TypeName, str]:
        names: dict[TypeName, str] = {}
        for one in sorted((one.name for one in named), key=precedence):
            plain, full = camel_case(one.name), camel_case(f"{one.schema} {one.name}")
            numbered = (f"{full}{number}" for number in count(2))
            names[one] = next(name for name in chain((plain, full), numbered) if name not in taken)
            taken.add(names[one])
        return names

    return Names(given(catalog.tables), given((*catalog.enums, *catalog.composites)))


def precedence(name: TypeName) -> tuple[bool, TypeName]:
    return name.schema != DEFAULT_SCHEMA, name


def camel_case(name: str) -> str:
    """Return a name in CamelCase that is an identifier in TypeScript and in Python."""
    words = NO_WORD.split(unicodedata.normalize("NFKC", name))
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    kept = "".join(letter for letter in joined if f"a{letter}".isidentifier())
    return kept if kept.isidentifier() else f"Type{kept}"


def quoted(text: str, beyond_16_bits: str) -> str:
    """Return a string literal in which what does not show is escaped, as \\uffff or as given."""
    literal = json.dumps(text, ensure_ascii=False)
    return "".join(
        letter
        if letter.isprintable()
        else (beyond_16_bits if ord(letter) > 0xFFFF else "\\u{:04x}").format(ord(letter))
        for letter in literal
    )


def commented(text: str) -> str:
    """Return a text for a comment or a docstring, which it cannot end."""
    return printable(text).replace("\\", "/").replace("*/", "* /").replace('"', "'")
