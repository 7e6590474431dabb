"""Names of the fields of a pydantic model for columns, which may have any names."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, count

from pydantic import BaseModel

NO_WORD = re.compile(r"\W+")
# pydantic has attributes of these names, and keeps all that begin so to itself.
OF_MODELS = frozenset(dir(BaseModel))
KEPT = ("_", "model_dump", "model_validate")


def field_names(columns: Sequence[str], taken: Collection[str]) -> list[str]:
    """
    Return a name for each column: its own where it can be one, none of them in `taken`.

    A keyword gets an underscore behind, as PEP 8 has it.
    """
    plain = [name if is_possible(name, taken) else None for name in columns]
    used = {*taken, *(name for name in plain if name)}
    names: list[str] = []
    for column, name in zip(columns, plain, strict=True):
        if name is None:
            name = next(one for one in alternatives(column) if is_possible(one, used))
            used.add(name)
        names.append(name)
    return names


def is_possible(name: str, taken: Collection[str]) -> bool:
    return (
        name.isidentifier()
        and unicodedata.normalize("NFKC", name) == name
        and not keyword.iskeyword(name)
        and not name.startswith(KEPT)
        and name not in OF_MODELS
        and name not in taken
    )


def alternatives(column: str) -> Iterator[str]:
    """Yield names for a column that cannot have its own, the most similar first."""
    words = NO_WORD.sub("_", unicodedata.normalize("NFKC", column)).strip("_")
    name = words if words.isidentifier() and not words.startswith(KEPT) else f"column_{words}"
    return chain((name, f"{name}_"), (f"{name}_{number}" for number in count(2)))
