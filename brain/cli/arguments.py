"""Checks of arguments that reach PostgreSQL as they were typed."""

from __future__ import annotations

from typing import Any

import click


def text(_: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Refuse a text, or one of several, with bytes that are no UTF-8: a shell passes any."""
    for each in value if isinstance(value, tuple) else [value or ""]:
        try:
            each.encode()
        except UnicodeEncodeError:
            shown = each.encode(errors="replace").decode()
            raise click.BadParameter(f"{shown!r} is not UTF-8", param=parameter) from None
    return value


def name(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Refuse what `text` refuses, and an empty name."""
    if not value.strip():
        raise click.BadParameter("the name is empty", param=parameter)
    return text(context, parameter, value)
