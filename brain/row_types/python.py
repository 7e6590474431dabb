"""Writes the types of rows as pydantic models, as Brain's client for Python parses rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from brain.row_types.field_names import field_names
from brain.row_types.model import (
    HAVE_NULL,
    Array,
    Catalog,
    CompositeType,
    EnumType,
    Field,
    Scalar,
    ValueType,
    WatchedTable,
)
from brain.row_types.names import Names, commented, names_for, quoted

SCALARS: Mapping[Scalar, str] = {
    Scalar.BOOLEAN: "bool",
    Scalar.INTEGER: "int",
    Scalar.BIGINT: "int",
    Scalar.NUMERIC: "Numeric",
    Scalar.REAL: "float",
    Scalar.DOUBLE: "float",
    Scalar.DATE: "Date",
    Scalar.TIME: "Time",
    Scalar.TIMESTAMP: "Timestamp",
    Scalar.UUID: "UUID",
    Scalar.TEXT: "str",
    Scalar.JSON: "Any",
    Scalar.NULL: "None",
}

# What Python has no value of is left as the text that it is.
ALIASES: Mapping[str, str] = {
    "Date": """\
Date = Annotated[datetime.date | str, Field(union_mode="left_to_right")]
\"""A str where Python has no such date: infinity, 0044-03-15 BC.\"""
""",
    "Nested": """\
T = TypeVar("T")
Nested = TypeAliasType("Nested", "list[T | None] | list[Nested[T]]", type_params=(T,))
\"""An array of any number of dimensions: PostgreSQL does not fix it.\"""
""",
    "Numeric": """\
Numeric = Annotated[Decimal, Field(allow_inf_nan=True)]
""",
    "Time": """\
Time = Annotated[datetime.time | str, Field(union_mode="left_to_right")]
\"""A str where Python has no such time: 24:00:00.\"""
""",
    "Timestamp": """\
Timestamp = Annotated[datetime.datetime | str, Field(union_mode="left_to_right")]
\"""A str where Python has no such time: infinity, years beyond 1 to 9999.\"""
""",
}
# The module and the names that a type needs.
IMPORTS: Mapping[str, Iterable[tuple[str, str]]] = {
    "Any": [("typing", "Any")],
    "ConfigDict": [("pydantic", "ConfigDict")],
    "Date": [("", "datetime"), ("typing", "Annotated"), ("pydantic", "Field")],
    "Field": [("pydantic", "Field")],
    "Literal": [("typing", "Literal")],
    "Nested": [("typing", "TypeVar"), ("typing_extensions", "TypeAliasType")],
    "Numeric": [("decimal", "Decimal"), ("typing", "Annotated"), ("pydantic", "Field")],
    "Time": [("", "datetime"), ("typing", "Annotated"), ("pydantic", "Field")],
    "Timestamp": [("", "datetime"), ("typing", "Annotated"), ("pydantic", "Field")],
    "UUID": [("uuid", "UUID")],
}
RESERVED = frozenset(
    {
        *ALIASES,
        *(name for needed in IMPORTS.values() for _, name in needed),
        *("BaseModel", "T", "None", "True", "False"),
    }
)
# Of the class body, besides those of classes.
BUILT_IN = frozenset({"bool", "float", "int", "list", "str"})
THIRD_PARTY = ("pydantic", "typing_extensions")


def python(catalog: Catalog, command: str, *, may_omit: bool = False) -> str:
    """
    Return the source text of the models; `command` is the one that makes it.

    With `may_omit`, a field that Brain may leave out because of its size is None then.
    """
    return Python(names_for(catalog, RESERVED), may_omit).text(catalog, command)


class Python:
    """Writes one text; what is imported and defined in it is what was used by then."""

    def __init__(self, names: Names, may_omit: bool) -> None:
        self._names = names
        self._may_omit = may_omit
        self._used: set[str] = set()
        classes = {*names.tables.values(), *names.types.values()}
        self._no_fields = RESERVED | BUILT_IN | classes

    def text(self, catalog: Catalog, command: str) -> str:
        enums = sorted(map(self._enum, catalog.enums))
        tables = sorted(catalog.tables, key=lambda table: self._names.tables[table.name])
        # Each class comes after those that it is made of.
        classes = [
            *(self._composite(composite) for composite in catalog.composites),
            *(self._table(table) for table in tables),
        ]
        aliases = [text for name, text in ALIASES.items() if name in self._used]
        header = f'# Made by: {command}\n"""The rows of the tables that Brain watches."""\n'
        parts = [header, *self._imports(bool(classes))]
        if aliases or enums:
            parts.append("".join([*aliases, *enums]))
        return "\n".join(parts) + "".join(f"\n\n{text}" for text in classes)

    def _imports(self, has_models: bool) -> list[str]:
        """Return the imports in blocks: of the standard library, and of others."""
        needed = {each for name in self._used for each in IMPORTS.get(name, ())}
        if has_models:
            needed.add(("pydantic", "BaseModel"))
        modules: dict[str, list[str]] = {}
        for module, name in sorted(needed):
            modules.setdefault(module, []).append(name)
        plain = [f"import {name}\n" for name in modules.pop("", [])]
        lines = {name: f"from {name} import {', '.join(of)}\n" for name, of in modules.items()}
        blocks = (
            [*plain, *(line for name, line in lines.items() if name not in THIRD_PARTY)],
            [line for name, line in lines.items() if name in THIRD_PARTY],
        )
        return ["".join(block) for block in blocks if block]

    def _enum(self, enum: EnumType) -> str:
        name, docstring = (
            self._names.types[enum.name],
            f'"""The enum {commented(str(enum.name))}."""',
        )
        self._used.add("Literal")
        labels = ", ".join(map(literal, enum.labels)) or "None"  # an enum may have no values
        return f"{name} = Literal[{labels}]\n{docstring}\n"

    def _table(self, table: WatchedTable) -> str:
        what = f"A row of {table.name}, on the channel {table.channel}."
        return self._model(self._names.tables[table.name], what, table.columns)

    def _composite(self, composite: CompositeType) -> str:
        what = f"A value of the type {composite.name}."
        return self._model(self._names.types[composite.name], what, composite.fields)

    def _model(self, class_name: str, docstring: str, fields: tuple[Field, ...]) -> str:
        names = field_names([field.name for field in fields], self._no_fields)
        lines = [f'"""{commented(docstring)}"""', ""]
        if any(field.name != name for field, name in zip(fields, names, strict=True)):
            self._used.add("ConfigDict")
            lines += ["model_config = ConfigDict(populate_by_name=True)", ""]
        lines += [self._field(field, name) for field, name in zip(fields, names, strict=True)]
        body = "".join(f"    {line}".rstrip() + "\n" for line in lines)
        return f"class {class_name}(BaseModel):\n{body}"

    def _field(self, field: Field, name: str) -> str:
        may_be_left_out = self._may_omit and field.is_unbounded
        type = self._type(field.type)
        if (field.is_nullable or may_be_left_out) and field.type not in HAVE_NULL:
            type += " | None"
        options = ["default=None"] if may_be_left_out else []
        if field.name != name:
            options.append(f"alias={literal(field.name)}")
            self._used.add("Field")
            return f"{name}: {type} = Field({', '.join(options)})"
        return f"{name}: {type}" + (" = None" if may_be_left_out else "")

    def _type(self, type: ValueType) -> str:
        match type:
            case Scalar():
                self._used.add(SCALARS[type])
                return SCALARS[type]
            case Array(element, is_flat=True):
                self._used.add("Nested")
                return f"list[{self._type(element)} | None] | list[Nested[str]]"
            case Array(element):
                self._used.add("Nested")
                return f"Nested[{self._type(element)}]"
        return self._names.types[type.name]


def literal(text: str) -> str:
    return quoted(text, "\\U{:08x}")
