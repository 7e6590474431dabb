"""The figures that a scenario of misbehaving clients measures, and their bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil, inf
from statistics import median
from typing import NamedTuple

Delays = Mapping[int, int]
"""By tenths of a millisecond: how many messages had this delay."""


class Figure(NamedTuple):
    """One number of a report; one without bounds is only printed."""

    what: str
    value: float
    unit: str = ""
    most: float = inf
    least: float = -inf

    @property
    def holds(self) -> bool:
        # False for NaN.
        return self.least <= self.value <= self.most

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit and self.value < inf else ""
        text = f"{self.what} {shortened(self.value)}{unit}"
        is_plain = self.holds and self.most in (0, inf)  # a count that has to be 0, and is
        if is_plain and self.least == -inf:
            return text
        return f"{text} ({'' if self.holds else 'NOT '}{self._bounds()})"

    def _bounds(self) -> str:
        if self.least == self.most:
            return f"= {shortened(self.most)}"
        bounds = ((">=", self.least, -inf), ("<=", self.most, inf))
        return " and ".join(
            f"{sign} {shortened(bound)}" for sign, bound, none in bounds if bound != none
        )


class Findings(NamedTuple):
    """The report of one scenario."""

    figures: Sequence[Figure]

    @property
    def is_clean(self) -> bool:
        return all(figure.holds for figure in self.figures)

    def __str__(self) -> str:
        return ", ".join(map(str, self.figures))


def shortened(value: float) -> str:
    """Return a number with three digits, or all before the point; infinity is `never`."""
    if value == inf:
        return "never"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percentile(delays: Delays, share: float) -> float:
    """Return the delay in milliseconds that a share of the messages did not exceed."""
    wanted = ceil(share * sum(delays.values()))
    seen = 0
    for tenths, count in sorted(delays.items()):
        seen += count
        if seen >= wanted > 0:
            return tenths / 10
    return float("nan")


def usual_percentile(spans: Sequence[Delays], share: float) -> float:
    """Return the median of the spans' percentiles, which one bad moment does not move."""
    found = [percentile(delays, share) for delays in spans if delays]
    return median(found) if found else float("nan")


def percentile_of_all(spans: Sequence[Delays], share: float) -> float:
    """Return the delay that a share of all messages of the spans did not exceed."""
    return percentile(sum((Counter(delays) for delays in spans), start=Counter[int]()), share)
