"""Numbers become what a table shows of them: the middle, the spread, the slope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, kw_only=True)
class Summary:
    """`count` numbers: their median, the least and the greatest."""

    count: int
    middle: float
    least: float
    most: float


def summarize(values: Sequence[float | int | None]) -> Summary | None:
    """Sum up the numbers among `values`; None where there is none."""
    there = [float(value) for value in values if value is not None]
    if not there:
        return None
    return Summary(count=len(there), middle=median(there), least=min(there), most=max(there))


def growth(values: Sequence[float]) -> float | None:
    """Say by what share of the median a series grows from its first to its last value; None below 8 values.

    The slope is Theil's and Sen's, the median of the slopes of all pairs: one outlier moves it little.
    """
    if len(values) < 8:
        return None
    slopes = [
        (values[later] - values[sooner]) / (later - sooner)
        for sooner in range(len(values)) for later in range(sooner + 1, len(values))
    ]
    return median(slopes) * (len(values) - 1) / median(values)
