"""
The docstrings of a class's attributes.

pydantic's own `use_attribute_docstrings` reads the source of every model when it is imported, which
takes a process 0.1 s at its start; here a module is read when a document is made of its models.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from functools import cache
from itertools import pairwise


def attribute_docs(cls: type) -> dict[str, str]:
    """Return the docstrings of the attributes of a class and of its bases, by their names."""
    docs: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if not one.__module__.startswith("pydantic"):
            docs |= docs_of_module(one.__module__).get(one.__qualname__, {})
    return docs


@cache
def docs_of_module(name: str) -> Mapping[str, Mapping[str, str]]:
    """Return those of the classes of a module; none where there is no source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except (OSError, TypeError):
        return {}
    return {one.name: docs_in(one) for one in tree.body if isinstance(one, ast.ClassDef)}


def docs_in(definition: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for statement, after in pairwise(definition.body):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docs[name] = inspect.cleandoc(text)
    return docs
