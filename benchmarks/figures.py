"""Figures of many measurements, and the lines that tell them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Median:
    """The median of measurements, and an interval that holds the true one with 95 % or a little more."""

    values: Sequence[float]

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """Two of the measurements, by their ranks: how many lie below the true median is a matter of coins.

        With fewer than six measurements even the smallest and the largest are no such interval.
        """
        ordered, count = sorted(self.values), len(self.values)
        outside, rank = 1 / 2**count, 0
        while outside + math.comb(count, rank + 1) / 2**count <= 0.025:
            rank += 1
            outside += math.comb(count, rank) / 2**count
        return ordered[rank], ordered[-1 - rank]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} ({low:.3f} to {high:.3f})"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest measurement that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def row(what: str, figure: object, reach: str) -> None:
    """A line of a table in benchmarks/README.md."""
    print(f"| {what} | {figure} | {reach} |", flush=True)
