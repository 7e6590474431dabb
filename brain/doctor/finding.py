"""What a check has found, and the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "warning", "failure", "not checked"]
Facts = dict[str, Any]
"""Measurements by name, as JSON can have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The verdict of one check."""

    verdict: Verdict
    text: str
    """What was found, in a line."""
    way_out: str | None = None
    """The command or the setting that ends it; what to pass, if it was not checked."""
    details: Sequence[str] = ()
    """Lines, where there is more than one."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Measurements, for programs."""


class NotChecked(Exception):
    """A check lacks what it needs."""

    def __init__(self, text: str, way_out: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.way_out = way_out


def ok(text: str, details: Sequence[str] = (), **facts: Any) -> Finding:
    return Finding(verdict="ok", text=text, details=details, facts=facts)


def warning(text: str, way_out: str, details: Sequence[str] = (), **facts: Any) -> Finding:
    return Finding(verdict="warning", text=text, way_out=way_out, details=details, facts=facts)


def failure(text: str, way_out: str, details: Sequence[str] = (), **facts: Any) -> Finding:
    return Finding(verdict="failure", text=text, way_out=way_out, details=details, facts=facts)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: 1 node, 2 nodes."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
