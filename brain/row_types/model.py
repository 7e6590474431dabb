"""What the values of a column are in JSON, whatever language describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto


class Scalar(Enum):
    """A value that is no array and no object; of the others, what PostgreSQL prints."""

    BOOLEAN = auto()
    INTEGER = auto()
    """smallint and integer: every double holds it."""
    BIGINT = auto()
    NUMERIC = auto()
    REAL = auto()
    DOUBLE = auto()
    DATE = auto()
    TIME = auto()
    TIMESTAMP = auto()
    UUID = auto()
    TEXT = auto()
    JSON = auto()
    """json, jsonb, and types of extensions that are sent as JSON."""
    NULL = auto()
    """The table has no such column any more."""


HAVE_NULL = (Scalar.JSON, Scalar.NULL)
"""Types of which null is a value."""


@dataclass(frozen=True, slots=True, order=True)
class TypeName:
    """The name of a table, or of a type that a database defines."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Named:
    """A value of an enum or of a composite type."""

    name: TypeName


@dataclass(frozen=True, slots=True)
class Array:
    """An array of any number of dimensions; its elements may be null."""

    element: ValueType
    is_flat: bool = False
    """True if one of several dimensions is nested arrays of text: that of a composite type is."""


ValueType = Scalar | Named | Array


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table, or a field of a composite type."""

    name: str
    type: ValueType
    is_nullable: bool = True
    is_unbounded: bool = False
    """True if a value may be too large to be sent."""


@dataclass(frozen=True, slots=True)
class EnumType:
    name: TypeName
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompositeType:
    name: TypeName
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class WatchedTable:
    name: TypeName
    channel: str
    columns: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The watched tables, and the types of their columns."""

    tables: Sequence[WatchedTable]
    enums: Sequence[EnumType]
    composites: Sequence[CompositeType]
    """Each after those that it is made of."""
    dropped: Sequence[str] = ()
    """Tables that are watched but were dropped."""
